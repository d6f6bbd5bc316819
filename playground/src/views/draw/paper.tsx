/** The paper: pointers draw on it, keys print on it, images land on it. */

import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

import { Notice } from "../../components/notice";
import { text } from "../../i18n";
import { enlarged, paint, printed } from "./pictures";
import type { Point, Stroke } from "./placing";
import { SAMPLES } from "./samples";
import { clear, draw, drawing } from "./state";

/** Pixels of the canvas; the style sheet says how large they are. */
const SIDE = 640;

/** Whether the last file was no image. */
const broken = signal(false);

export function Paper() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const words = text.value.draw.paper;
  const shown = drawing.value;

  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (context) paint(context, SIDE, shown);
  }, [shown]);

  useEffect(() => {
    const paste = (event: ClipboardEvent): void => void openImage(event.clipboardData?.files);
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);

  return (
    <section
      class="card paper"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        void openImage(event.dataTransfer?.files);
      }}
    >
      <div class="paper-sheet">
        <canvas
          ref={canvas}
          width={SIDE}
          height={SIDE}
          tabIndex={0}
          role="img"
          aria-label={words.label}
          onPointerDown={begin}
          onPointerMove={go}
          onKeyDown={onKey}
        />
        {!shown && (
          <p class="paper-empty" aria-hidden="true">
            <strong>{words.empty}</strong>
            <span>{words.keys}</span>
          </p>
        )}
      </div>
      <div class="buttons">
        <button type="button" disabled={!shown} onClick={() => undo(performance.now())}>
          {words.undo}
        </button>
        <button type="button" disabled={!shown} onClick={clear}>
          {words.clear}
        </button>
        <label class="button file">
          {words.open}
          <input
            class="unseen"
            type="file"
            accept="image/*"
            onChange={(event) => {
              void openImage(event.currentTarget.files);
              event.currentTarget.value = "";
            }}
          />
        </label>
      </div>
      {broken.value && <Notice kind="warning" title={words.broken} />}
    </section>
  );
}

/** Something to try without drawing. */
export function Samples() {
  const words = text.value.draw.paper;
  return (
    <section class="card samples" aria-labelledby="samples-title">
      <h2 id="samples-title">{words.samples}</h2>
      <div>
        {SAMPLES.map((sample, digit) => (
          <button
            key={digit}
            type="button"
            aria-label={words.sample(digit)}
            title={words.sample(digit)}
            onClick={() => put({ kind: "image", image: enlarged(sample) })}
          >
            {digit}
          </button>
        ))}
      </div>
    </section>
  );
}

function put(next: Parameters<typeof draw>[0]): void {
  broken.value = false;
  draw(next, performance.now());
}

function strokes(): readonly Stroke[] {
  return drawing.value?.kind === "strokes" ? drawing.value.strokes : [];
}

function begin(event: PointerEvent): void {
  if (event.button !== 0 || !event.isPrimary) return;
  const canvas = event.currentTarget as HTMLCanvasElement;
  canvas.setPointerCapture(event.pointerId);
  broken.value = false;
  draw({ kind: "strokes", strokes: [...strokes(), [pointOf(event, canvas)]] }, event.timeStamp);
}

/** While the pointer is down, the last stroke goes on. A hand is quicker than the screen, hence coalesced events. */
function go(event: PointerEvent): void {
  const canvas = event.currentTarget as HTMLCanvasElement;
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  const before = strokes();
  const last = before.at(-1) ?? [];
  const events = event.getCoalescedEvents?.() ?? [];
  const points = (events.length ? events : [event]).map((each) => pointOf(each, canvas));
  draw({ kind: "strokes", strokes: [...before.slice(0, -1), [...last, ...points]] }, event.timeStamp);
}

function pointOf({ clientX, clientY }: PointerEvent, canvas: HTMLCanvasElement): Point {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return { x: (clientX - left) / width, y: (clientY - top) / height };
}

function undo(at: number): void {
  const rest = strokes().slice(0, -1);
  if (rest.length) draw({ kind: "strokes", strokes: rest }, at);
  else clear();
}

function onKey(event: KeyboardEvent): void {
  if ((event.ctrlKey || event.metaKey) && event.key === "z") undo(event.timeStamp);
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "Escape" || event.key === "Delete" || event.key === "Backspace") clear();
  else if (event.key.length === 1 && event.key !== " ") put({ kind: "image", image: printed(event.key) });
  else return;
  event.preventDefault();
}

async function openImage(files: FileList | null | undefined): Promise<void> {
  const file = files?.[0];
  if (!file) return;
  try {
    put({ kind: "image", image: await createImageBitmap(file) });
  } catch {
    broken.value = true;
  }
}
