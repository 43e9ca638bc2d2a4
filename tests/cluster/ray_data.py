"""Detects in a folder of photographs with Ray Data: a row a photograph, as Parquet.

usage: ray_data.py FOLDER OUT [MODEL]
"""
import re
import sys

import pyarrow
import ray

SCHEMA = pyarrow.schema({
    "path": pyarrow.string(), "width": pyarrow.int32(), "height": pyarrow.int32(), "name": pyarrow.list_(pyarrow.string()),
    "confidence": pyarrow.list_(pyarrow.float32()), "xyxy": pyarrow.list_(pyarrow.list_(pyarrow.float32())), "error": pyarrow.string(),
})


class Worker:
    """An actor: a process with a detector, for one core."""

    def __init__(self, model):
        from yolo_lat import Detector

        self.detector = Detector(model, engine="cpu", threads=1)

    def __call__(self, batch):
        rows = []
        for path, found in zip(batch["path"].to_pylist(), self.detector(batch["bytes"].to_pylist(), return_exceptions=True)):
            if isinstance(found, Exception):
                rows.append({"path": path, "error": str(found)})
            else:
                rows.append({
                    "path": path, "width": found.width, "height": found.height, "name": found.class_names.tolist(),
                    "confidence": found.confidence.tolist(), "xyxy": found.xyxy.tolist(),
                })
        return pyarrow.Table.from_pylist(rows, SCHEMA)


def main(folder, out, model="n"):
    ray.init(include_dashboard=False, log_to_driver=False)
    # Nine tenths of a core for each detector; reading and writing share what is left.
    cores = int(ray.cluster_resources()["CPU"])
    rest = {"num_cpus": 0.1}
    photographs = ray.data.read_binary_files(folder, include_paths=True, ray_remote_args=rest)
    found = photographs.map_batches(
        Worker, fn_constructor_args=(model,), batch_format="pyarrow", batch_size=64, num_cpus=0.9,
        compute=ray.data.ActorPoolStrategy(size=cores),
    )
    try:
        found.write_parquet(out, mode="error", ray_remote_args=rest)
    except Exception as error:
        # Of a worker's traceback, what it ends with.
        told = re.findall(r"^(?:\w+\.)*\w+(?:Error|Exception): .*", str(error), re.MULTILINE)
        sys.exit(f"ray_data.py: on a worker: {told[-1]}" if told else f"ray_data.py: {error}")
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
