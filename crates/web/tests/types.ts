// A program that uses the package: it compiles where the declarations are right.
import { Detector, type Attention, type Detections, type LoadOptions } from "../js/index.js";

export async function example(picture: HTMLVideoElement | ImageData): Promise<string[]> {
  const options: LoadOptions = { engine: "cpu", confidence: 0.3 };
  const detector = await Detector.load(Detector.models[0], options);
  const { objects, milliseconds }: Detections = await detector.detect(picture);
  await detector.watch(0);
  const attention: Attention | undefined = await detector.attention(1, 2);
  const sum: number = attention?.weights.reduce((sum, weight) => sum + weight, 0) ?? 0;
  await detector.setConfidence(0.5);
  await detector.replace("softmax");
  // @ts-expect-error There is no such kernel.
  await detector.replace("cosine");
  // @ts-expect-error There is no such engine.
  await Detector.load("n", { engine: "quantum" });
  // @ts-expect-error A path is no picture.
  await detector.detect("picture.jpg");
  await detector.close();
  return objects.map((object) => `${object.class} ${object.confidence} ${milliseconds} ${sum}`);
}
