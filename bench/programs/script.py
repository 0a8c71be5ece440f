# SPDX-License-Identifier: Apache-2.0
"""A fixed Python program: objects, dictionaries, strings, closures, JSON, regular expressions."""

import collections
import json
import random
import re
import sys


class Node:
    __slots__ = ("key", "left", "right", "payload")

    def __init__(self, key, payload):
        self.key, self.payload = key, payload
        self.left = self.right = None


def insert(root, key, payload):
    while True:
        side = "left" if key < root.key else "right"
        child = getattr(root, side)
        if child is None:
            setattr(root, side, Node(key, payload))
            return
        root = child


def count_words(rng):
    text = " ".join("".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(30000))
    words = collections.Counter(re.findall(r"[a-z]+", text))
    longer = re.sub(r"([aeiou])", r"<\1>", text)
    return len(words) * 7 + len(longer)


def tree(rng):
    root = Node(0.5, "root")
    for i in range(20000):
        insert(root, rng.random(), [i, str(i)])
    stack, total = [root], 0
    while stack:
        node = stack.pop()
        total += len(node.payload)
        stack.extend(child for child in (node.left, node.right) if child)
    return total


def documents(rng):
    people = [{"id": i, "name": "name%d" % i, "tags": [str(rng.random()) for _ in range(5)],
               "address": {"street": "street %d" % (i % 100), "number": i}} for i in range(6000)]
    text = json.dumps(people)
    again = json.loads(text)
    by_street = collections.defaultdict(list)
    for person in again:
        by_street[person["address"]["street"]].append(person["name"].upper())
    return len(text) + sum(len("".join(names)) for names in by_street.values())


def numbers():
    value, total = 1, 0
    for i in range(1, 900):
        value *= i
        total += value % 1000003
    grid = [[(x * y) ^ (x + y) for x in range(250)] for y in range(250)]
    return total + sum(map(sum, zip(*grid)))


def generators(rng):
    pairs = sorted(((rng.random(), "k%d" % i) for i in range(40000)), key=lambda pair: pair[1])
    makers = [lambda n, i=i: (i, n) for i in range(20000)]
    return len({name[:4] for _, name in pairs}) + sum(make(1)[0] for make in makers)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    rng = random.Random(7)
    total = 0
    for _ in range(rounds):
        total += count_words(rng) + tree(rng) + documents(rng) + numbers() + generators(rng)
    print("checksum", total)


main()
