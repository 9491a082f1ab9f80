import time


def burn_hot(n):
    s = 0
    for i in range(n):
        s += i * i % 7
    return s


def burn_middle(n):
    return burn_hot(n) + 1


def burn_main():
    end = time.time() + 8
    while time.time() < end:
        burn_middle(20000)


burn_main()
