"""Sets up everything the program needs, with nothing but the machine's own Python.

`make setup` runs it. It makes `.venv`, installs the pinned packages, prepares the database and the
static files. Every step that is already done is skipped, so that it can be run again at any time.
"""

# Only syntax that old Pythons can parse: the check of the version must be able to say its sentence.
import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed.sha256")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
GB = 1000**3


def main():
    parser = argparse.ArgumentParser(description="Set up the image search.")
    parser.add_argument("--dev", action="store_true", help="Also install what the tests and linters need.")
    parser.add_argument("--torch", choices=["cpu", ""], default="", help="cpu: PyTorch without CUDA libraries.")
    parser.add_argument("--packages-only", action="store_true", help="Leave database and static files alone.")
    options = parser.parse_args()
    check_platform()
    if not installed(options):
        make_venv()
        install(options)
    if not options.packages_only:
        prepare()
    return 0


def say(text):
    print(text, flush=True)


def stop(sentence):
    sys.stderr.write(sentence + "\n")
    raise SystemExit(1)


def check_platform():
    if sys.version_info < (3, 11):
        stop(
            "This program needs Python 3.11 or newer; {} is {}.{}. Install a newer Python (for example python3.12), "
            "or name one: make setup PYTHON=/path/to/python3.12".format(sys.executable, *sys.version_info[:2])
        )
    if sys.platform == "win32":
        stop("On Windows the program runs in WSL: open a WSL terminal (Ubuntu or Debian) and run the same command.")


def sizes(options):
    """(bytes on disk after the installation, what they are)."""
    if sys.platform == "darwin":
        return int(2.2 * GB), "PyTorch for Apple silicon"
    if options.torch == "cpu":
        return int(2.2 * GB), "PyTorch for the CPU"
    return int(6.5 * GB), "PyTorch with its CUDA libraries, which also runs without a GPU (less: TORCH=cpu)"


def requirement_files(options):
    names = ["requirements.txt"] + (["requirements-dev.txt"] if options.dev else [])
    return [os.path.join(ROOT, name) for name in names]


def fingerprint(path, options):
    """What this installation of one requirements file is: the file, the Python, the choice of torch."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(file.read())
    digest.update(repr((sys.version_info[:2], options.torch)).encode())
    return digest.hexdigest()


def stamped():
    try:
        with open(STAMP) as file:
            return set(file.read().split())
    except OSError:
        return set()


def installed(options):
    if not os.path.exists(PYTHON):
        return False
    done = stamped()
    if not all(fingerprint(path, options) in done for path in requirement_files(options)):
        return False
    return subprocess.call([PYTHON, "-c", "import django"], stderr=subprocess.DEVNULL) == 0


def venv_works():
    """Whether `.venv` is there, runs, and is of this Python's version (a moved folder or an upgrade breaks it)."""
    if not os.path.exists(PYTHON):
        return False
    ask = "import sys, pip; print('%d.%d' % sys.version_info[:2])"
    found = subprocess.run([PYTHON, "-c", ask], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return found.returncode == 0 and found.stdout.decode().strip() == "{}.{}".format(*sys.version_info[:2])


def make_venv():
    if venv_works():
        return
    if os.path.lexists(VENV):
        say("The environment in .venv does not work with this Python; it is made anew.")
    else:
        say("Making the environment in .venv with Python {}.{}.".format(*sys.version_info[:2]))
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        stop(
            "The environment could not be made: {}\nOn Debian and Ubuntu this brings what is missing: "
            "sudo apt install python{}.{}-venv".format(made.stdout.decode().strip(), *sys.version_info[:2])
        )


def check_disk(options):
    needed, what = sizes(options)
    already = folder_size(VENV)
    missing = max(needed - already, int(0.3 * GB))
    spare = int(1.5 * GB) if missing > GB else 0  # pip unpacks each package beside the downloaded one
    free = shutil.disk_usage(ROOT).free
    say(
        "Installing the packages of requirements.txt into .venv: about {:.1f} GB, most of it {}. "
        "{:.1f} GB are free here.".format(missing / GB, what, free / GB)
    )
    if free < missing + spare:
        stop(
            "That does not fit: free {:.1f} GB on the disk of {}, or put the program on a larger disk.".format(
                (missing + spare - free) / GB, ROOT
            )
        )


def folder_size(path):
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total


def install(options):
    check_disk(options)
    started = time.monotonic()
    if os.path.exists(STAMP):
        os.remove(STAMP)
    if options.torch == "cpu":
        pins = [pin("torch"), pin("torchvision")]
        pip("install", "--no-deps", "--only-binary=:all:", "--index-url", CPU_INDEX, *pins)
    files = requirement_files(options)
    arguments = ["install", "--only-binary=:all:"]
    for path in files:
        arguments += ["-r", path]
    pip(*arguments)
    # insightface asks for opencv-python, which needs libGL and libxcb on the machine; servers have neither.
    # The headless build of the same version brings the same module without them.
    headless = pin("opencv-python").replace("opencv-python", "opencv-python-headless")
    pip("install", "--no-deps", "--force-reinstall", "--only-binary=:all:", headless)
    with open(STAMP, "w") as file:
        file.write("\n".join(fingerprint(path, options) for path in files) + "\n")
    say("Packages installed in {:.0f} seconds.".format(time.monotonic() - started))


def pin(name):
    """The line `name==version` of requirements.txt."""
    with open(os.path.join(ROOT, "requirements.txt")) as file:
        for line in file:
            if re.match(re.escape(name) + r"==", line):
                return line.split()[0]
    raise SystemExit("requirements.txt has no line for " + name)


def pip(*arguments):
    """Run pip, showing what is being fetched in one line that renews itself; everything is shown when it fails."""
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT
    )
    output = []
    terminal = sys.stdout.isatty()
    try:
        for line in process.stdout or []:
            output.append(line)
            step = re.match(r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?(\S+?)-\d\S* ?(\(.*?\))?", line)
            text = "  {} {}".format(step.group(1), step.group(2) or "") if step else ""
            if line.startswith("Installing collected"):
                text = "  unpacking the packages (a minute or two)"
            if text and terminal:
                sys.stdout.write("\r\033[K" + text[:100])
                sys.stdout.flush()
            elif text and ("GB)" in text or "unpacking" in text):
                say(text)
        process.wait()
    finally:
        if terminal:
            sys.stdout.write("\r\033[K")
            sys.stdout.flush()
        if process.poll() is None:
            process.terminate()
    if process.returncode:
        sys.stderr.write("".join(output[-30:]))
        stop(
            "The packages could not be installed; pip's own words are above. Without a network, put the wheels into "
            "a folder and set PIP_FIND_LINKS to it. Then run the same command again: it goes on from there."
        )


def prepare():
    quiet = ["--verbosity", "0", "--skip-checks"]  # `start` says what is worth saying
    for arguments in (["migrate", *quiet], ["collectstatic", "--noinput", *quiet]):
        if subprocess.call([PYTHON, "manage.py", *arguments], cwd=ROOT):
            stop("`manage.py {}` failed; its words are above.".format(arguments[0]))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        stop("\nStopped. The same command goes on from there.")
