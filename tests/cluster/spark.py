"""Detects in a folder of photographs with Spark: a row a photograph, as Parquet.

usage: spark.py FOLDER OUT [MODEL]     (or spark-submit --master ... spark.py ...)
"""
import re
import sys

from pyspark.sql import SparkSession

SCHEMA = "path string, width int, height int, name array<string>, confidence array<float>, xyxy array<array<float>>, error string"


def detect(model):
    def run(batches):
        import pandas
        from yolo_lat import shared_detector

        # One for each Python worker, which serves one core and many tasks.
        detector = shared_detector(model, engine="cpu", threads=1)
        for batch in batches:
            rows = []
            for path, found in zip(batch["path"], detector(list(batch["content"]), return_exceptions=True)):
                if isinstance(found, Exception):
                    rows.append((path, None, None, None, None, None, str(found)))
                else:
                    boxes = (found.class_names.tolist(), found.confidence.tolist(), found.xyxy.tolist())
                    rows.append((path, found.width, found.height, *boxes, None))
            yield pandas.DataFrame(rows, columns=["path", "width", "height", "name", "confidence", "xyxy", "error"])

    return run


def main(folder, out, model="n"):
    spark = (
        SparkSession.builder.appName("yolo-lat")
        # Photographs in a batch: the usual ten thousand would be gigabytes.
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", 64)
        .getOrCreate()
    )
    photographs = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(folder).select("path", "content")
    try:
        photographs.mapInPandas(detect(model), SCHEMA).write.parquet(out)
    except Exception as error:
        # Of a worker's traceback, what it ends with.
        told = re.findall(r"^(?:\w+\.)*\w+(?:Error|Exception): .*", str(error), re.MULTILINE)
        sys.exit(f"spark.py: on a worker: {told[-1]}" if told else f"spark.py: {error}")
    finally:
        spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
