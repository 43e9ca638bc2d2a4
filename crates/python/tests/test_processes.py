"""Threads, processes, signals, pickles."""

import multiprocessing
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ASSETS, same

from yolo_lat import Detector, shared_detector

CAT = ASSETS / "chelsea.jpg"


def test_the_gil_is_free_while_detecting():
    """Another thread takes turns, each of which needs the GIL, during a call: two would be those before and after it."""
    slow = Detector("n", engine="reference", threads=1)
    turns, done = 0, threading.Event()

    def count():
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(1e-6)

    counter = threading.Thread(target=count)
    counter.start()
    before = turns
    slow(CAT)
    within = turns - before
    done.set()
    counter.join()
    assert within >= 100, f"{within} turns during a call"


def test_threads_share_a_detector(detector):
    expected = detector(CAT)
    found = []
    threads = [threading.Thread(target=lambda: found.extend(detector([CAT] * 9))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 36 and all(same(one, expected) for one in found)


def test_pickles(detector):
    made = Detector("n", classes=["cat"], size=(416, 256), threads=1)
    again = pickle.loads(pickle.dumps(made))
    found = pickle.loads(pickle.dumps(again(CAT)))
    assert same(found, made(CAT)) and not same(found, detector(CAT))
    assert repr(again) == repr(made)


def test_a_process_shares_a_detector():
    one = shared_detector("n", threads=1)
    assert shared_detector("n", threads=1) is one and shared_detector("n", threads=2) is not one
    assert same(one(CAT), shared_detector()(CAT))


def found_by(detector, path):
    return detector(path)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_processes_take_a_detector(detector, method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert same(pool.apply(found_by, (detector, CAT)), detector(CAT))


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked on Unix")
def test_a_forked_process_is_told_to_make_its_own():
    script = f"""
import os, warnings
warnings.simplefilter("ignore")
from yolo_lat import Detector
detector = Detector("n")
detector({str(CAT)!r})
if os.fork():
    raise SystemExit(os.waitpid(-1, 0)[1])
try:
    detector({str(CAT)!r})
except RuntimeError as error:
    print(error)
print(len(Detector("n")({str(CAT)!r})))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    told, count = done.stdout.splitlines()
    assert told.startswith("this Detector was made in another process") and count == "1"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_ctrl_c_ends_a_call_between_batches():
    # What a shell starts in the background ignores it, and so would its children.
    script = f"""
import signal
from yolo_lat import Detector
signal.signal(signal.SIGINT, signal.default_int_handler)
detector = Detector("n", engine="reference", threads=1, batch=1)
try:
    print("go", flush=True)
    detector([{str(CAT)!r}] * 100_000)
except KeyboardInterrupt:
    print("interrupted")
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "go\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "interrupted\n"


def test_the_script_is_the_program(program):
    def run(*arguments):
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)

    assert run("--version").stdout.startswith("yolo-lat ")
    done = run("detect", str(CAT), "--no-timing")
    assert done.returncode == 0 and "cat" in done.stdout
    assert run("detect", str(CAT), "gone.jpg").returncode == 1
    wrong = run("detect", "-m", "q", str(CAT))
    assert wrong.returncode == 2 and wrong.stderr.startswith('yolo-lat: no model "q"')
    assert run("detect", "--no-such-option").returncode == 2
    module = subprocess.run([sys.executable, "-m", "yolo_lat", "--version"], capture_output=True, text=True)
    assert module.stdout == run("--version").stdout


def test_arrays_are_copied_before_others_may_change_them(detector):
    array = np.zeros((300, 451, 3), np.uint8)
    stop = threading.Event()

    def scribble():
        while not stop.is_set():
            array[:] = np.random.default_rng().integers(0, 255, array.shape, np.uint8)

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        found = detector([array] * 50)
    finally:
        stop.set()
        thread.join()
    assert all(np.isfinite(one.xyxy).all() for one in found)
