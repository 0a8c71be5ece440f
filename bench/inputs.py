# SPDX-License-Identifier: Apache-2.0
"""Makes the inputs that are too big to keep in the repository; the same bytes every time."""

import os
import random
import subprocess

COMMITS = 1500
FILES = 150


def _import_stream(rng):
    """A history for git fast-import: text files of random words, some lines changed per commit."""
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 10))) for _ in range(800)]

    def line():
        return " ".join(rng.choices(words, k=rng.randint(3, 12)))

    files = {"dir%d/file%d.txt" % (i % 12, i): [line() for _ in range(rng.randint(40, 400))]
             for i in range(FILES)}
    out, names = [], sorted(files)
    for commit in range(COMMITS):
        who = "Writer %d <w%d@example.org> %d +0000" % (commit % 9, commit % 9,
                                                        1700000000 + commit * 600)
        message = "Change %d\n\n%s\n" % (commit, line())
        out.append("commit refs/heads/main\nmark :%d\nauthor %s\ncommitter %s\ndata %d\n%s"
                   % (commit + 1, who, who, len(message), message))
        if commit:
            out.append("from :%d\n" % commit)
        for name in names if commit == 0 else rng.sample(names, rng.randint(1, 4)) + names[:1]:
            text = files[name]
            for _ in range(rng.randint(1, 5)):
                text[rng.randrange(len(text))] = line()
            if rng.random() < 0.3:
                text.insert(rng.randrange(len(text)), line())
            body = "\n".join(text) + "\n"
            out.append("M 644 inline %s\ndata %d\n%s\n" % (name, len(body), body))
        out.append("\n")
    return "".join(out).encode()


def make_repository(data, env):
    """A repository with packed history at data/repository."""
    path = os.path.join(data, "repository")
    if os.path.exists(os.path.join(path, "complete")):
        return
    def git(*args, **more):
        subprocess.run(["git", *args], check=True, env=env, stdout=subprocess.DEVNULL, **more)
    git("init", "-q", "-b", "main", path)
    git("-C", path, "fast-import", "--quiet", input=_import_stream(random.Random(99)))
    git("-C", path, "reset", "-q", "--hard", "main")
    git("-C", path, "-c", "pack.threads=1", "repack", "-a", "-d", "-f", "-q")
    with open(os.path.join(path, "complete"), "w", encoding="ascii"):
        pass
