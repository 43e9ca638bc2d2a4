"""The wheel beside the program on a folder of photographs, in turns: seconds, minimum and median, and by how much they differ.

usage: wheel.py PROGRAM FOLDER [ROUNDS]. Both start anew each time, with n, as many threads as there are cores, and no timing.
"""
import statistics, subprocess, sys, time

SCRIPT = """
import sys, yolo_lat
found = yolo_lat.Detector("n")(yolo_lat.images_in(sys.argv[1]))
print(len(found), sum(map(len, found)))
"""


def seconds(command):
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


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
    for name, of_name in times.items():
        print(f"{name:8} minimum {min(of_name):6.3f} s, median {statistics.median(of_name):6.3f} s")
    for measure in (min, statistics.median):
        print(f"wheel / program, {measure.__name__}: {measure(times['wheel']) / measure(times['program']):.3f}")


if __name__ == "__main__":
    main()
