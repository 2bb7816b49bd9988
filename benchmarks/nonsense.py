"""Queries that no photograph of everyday life answers: seeded gibberish, and sentences on what is on none of them."""

from __future__ import annotations

import random

_SENTENCES = """
the quarterly interest rate on government bonds
how to amortise a loan over thirty years
double entry bookkeeping for small companies
the marginal rate of income tax
inflation adjusted for purchasing power
a clause on liability in a rental contract
the burden of proof in civil procedure
ratification of the treaty by both parliaments
copyright expires seventy years after death
the appeal was dismissed on procedural grounds
the subjunctive mood in Latin grammar
etymology of the word algorithm
a sonnet has fourteen lines
comma before a subordinate clause
phonetic transcription of a diphthong
the derivative of a logarithm
every even number is the sum of two primes
eigenvalues of a symmetric matrix
the proof proceeds by induction
a group with no proper normal subgroup
the p value is below five percent
variance of an unbiased estimator
oxidation state of manganese
the half life of caesium
enthalpy of a chemical reaction
titration of a weak acid
spin of an elementary particle
the cosmological constant problem
redshift of distant galaxies
gravitational lensing by dark matter
messenger RNA is translated by ribosomes
the mitochondrial membrane potential
antibiotic resistance of bacteria
dose adjustment in renal failure
symptoms of iron deficiency
the reflex arc of the spinal cord
garbage collection pauses in a virtual machine
segmentation fault in the kernel module
unique constraint violated in the database
compile the program with debug symbols
a race condition between two threads
the certificate has expired on the mail server
reset the password of my account
subnet mask of a private network
syntax error near unexpected token
public key of the recipient
the firmware update failed with error code seven
categorical imperative of Immanuel Kant
the problem of induction in philosophy
free will and determinism
the unconscious in psychoanalysis
utilitarian ethics of well being
the doctrine of original sin
predestination and grace
the causes of inflation in the Weimar republic
succession crisis after the death of the king
the abolition of the corn laws
decline of the Hanseatic league
terms of the armistice
the gold standard was abandoned
supply and demand at equilibrium
monetary policy of the central bank
unemployment rate seasonally adjusted
the terms of service have changed
your invoice is overdue
minutes of the annual general meeting
apply for a residence permit
deadline for filing the annual report
notice period of the employment contract
pension entitlement after divorce
depreciation of intangible assets
a fugue in four voices
the dominant seventh chord resolves
key signature with three flats
the plot of the second chapter
an unreliable narrator in fiction
translation of the poem into Hungarian
an electron micrograph of a virus
an x-ray of a broken wrist
ultrasound scan of a kidney
a gel electrophoresis result
circuit diagram of an amplifier
the flow chart of a sorting algorithm
a bar code on a shipping label
the blueprint of a submarine
a stock market candlestick chart
the periodic table of elements
a crossword puzzle with black squares
a spreadsheet with quarterly figures
the screenshot of a login form
a surface of the planet Mars
an astronaut floating in orbit
craters on the far side of the moon
a nebula photographed by a telescope
a mammoth skeleton in a museum
a medieval illuminated manuscript
hieroglyphs carved in a tomb
an anglerfish in the deep sea
a volcano erupting with lava
an atomic bomb explosion
"""

SENTENCES: tuple[str, ...] = tuple(line for line in _SENTENCES.splitlines() if line)
"""A hundred sentences on law, money, science, language, computers, and on pictures that no family album holds."""

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_STARTS = ("bl", "cr", "d", "fl", "g", "gr", "kl", "m", "n", "p", "pr", "s", "sk", "t", "tr", "v", "w", "z")
_MIDDLES = ("a", "e", "i", "o", "u", "ai", "ou", "ee")
_ENDS = ("b", "ck", "ft", "k", "lm", "mp", "nk", "p", "rg", "sh", "t", "x", "zz", "")


def gibberish(count: int = 100, *, seed: int = 0) -> list[str]:
    """Random letters, invented words that can be said aloud, keys beside each other, and signs; the same each time."""
    chosen = random.Random(seed)
    made: list[str] = []
    while len(made) < count:
        kind = len(made) % 4
        words = []
        for _ in range(chosen.randint(1, 5)):
            if kind == 0:
                words.append("".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=chosen.randint(3, 10))))
            elif kind == 1:
                syllables = range(chosen.randint(1, 3))
                words.append("".join(chosen.choice(_STARTS) + chosen.choice(_MIDDLES) for _ in syllables))
                words[-1] += chosen.choice(_ENDS)
            elif kind == 2:
                words.append("".join(chosen.choices(chosen.choice(_ROWS), k=chosen.randint(3, 9))))
            else:
                words.append("".join(chosen.choices("0123456789#%&+=?!/_", k=chosen.randint(2, 6))))
        text = " ".join(words)
        if text not in made:
            made.append(text)
    return made


def unrelated(*, seed: int = 0) -> list[str]:
    """Two hundred queries that should find nothing: a hundred of gibberish, a hundred sentences."""
    return [*gibberish(200 - len(SENTENCES), seed=seed), *SENTENCES]
