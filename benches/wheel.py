"""The wheel beside the program on a folder of photographs, in turns: seconds by the clock and of the processor, minimum and median, and
by how much they differ.

usage: wheel.py PROGRAM FOLDER [ROUNDS]. Both start anew each time, with n, as many threads as there are cores, and no timing.
"""
import resource, statistics, subprocess, sys, time

SCRIPT = """
import sys, yolo_lat
found = yolo_lat.Detector("n")(yolo_lat.images_in(sys.argv[1]))
print(len(found), sum(map(len, found)))
"""


def processor():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(command):
    """By the clock, and of the processor."""
    start, used = time.perf_counter(), processor()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return (time.perf_counter() - start, processor() - used), done.stdout


def main():
    program, folder, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 9
    commands = {
        "program": [program, "detect", folder, "-f", "jsonl", "--no-timing", "--quiet"],
        "wheel": [sys.executable, "-c", SCRIPT, folder],
    }
    times = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            time_s, said = seconds(command)
            times[name].append(time_s)
    images, objects = said.split()
    print(f"{folder}: {images} photographs, {objects} objects, {rounds} rounds")
    for measure in (min, statistics.median):
        for index, clock in enumerate(("clock", "processor")):
            program, wheel = (measure(time_s[index] for time_s in times[name]) for name in commands)
            print(f"{measure.__name__} by the {clock}: program {program:.3f} s, wheel {wheel:.3f} s, wheel / program {wheel / program:.3f}")


if __name__ == "__main__":
    main()
