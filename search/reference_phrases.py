"""Ordinary things that people look for on photographs: the cohort that words are compared with (`background.py`).

What counts is that they are many and differ: subjects, places, doings, colours (the only words that `look` knows).
"""

from __future__ import annotations

PHRASES: tuple[str, ...] = (
    "a dog", "a cat asleep", "a horse in a field", "birds on a wire", "a fish", "cows on a meadow", "a butterfly",
    "a man", "two women talking", "children playing", "a baby", "a crowd of people", "a portrait of an old man",
    "a bride and groom", "a birthday party", "people at a table", "a football match", "somebody riding a bicycle",
    "a skier in the snow", "a swimmer", "a runner in a race", "a musician with a guitar", "a fisherman", "a climber",
    "mountains", "a beach", "a lake in the forest", "a waterfall", "a river with a bridge", "a desert", "a sunset",
    "clouds in the sky", "a garden with flowers", "a tree in autumn", "a path through the woods", "a snowy landscape",
    "a street at night", "a tall building", "a church", "an old castle", "a market", "a railway station", "an airport",
    "a kitchen", "a bedroom", "an office desk", "a bookshelf", "a window", "a shop front", "a playground",
    "a red car", "a train", "a boat on the water", "an aeroplane", "a motorcycle", "a bus", "a truck on a road",
    "a plate of food", "a cake", "fruit in a bowl", "a cup of coffee", "a bottle of wine", "a phone", "a clock",
    "a hat", "a page of text", "a map", "a painting on a wall", "a statue", "a black and white photograph", "fireworks",
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey",
    "dark blue", "pale green", "turquoise", "beige",
)  # fmt: skip
