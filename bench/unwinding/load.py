# Goes from Python to C and back: sorting with a key, JSON, recursion.
import json


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def key(row):
    return len(json.dumps(row)) + fib(8)


def main():
    rows = [{"n": i, "s": "x" * (i * 7 % 41), "l": list(range(i % 9))} for i in range(500)]
    for _ in range(40):
        rows = json.loads(json.dumps(sorted(rows, key=key)))


main()
