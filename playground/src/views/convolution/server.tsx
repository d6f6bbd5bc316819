/** The same convolution by the server: its model `lecture_conv`, asked once. */

import { floats, infer } from "../../api/inference";
import { modelMetadata, repositoryIndex } from "../../api/models";
import { useAsked } from "../../components/asked";
import { ErrorNotice, Notice } from "../../components/notice";
import { text } from "../../i18n";
import { hashOf } from "../../navigation";
import { LAYER, MODEL, VOLUME } from "./example";
import { Matrix } from "./matrix";
import { outputsOf, stepsOf } from "./steps";

const EXPECTED = outputsOf(stepsOf(VOLUME, LAYER));

export function ServerSays() {
  const words = text.value.convolution.server;
  const { value, error } = useAsked("lecture", askServer);
  return (
    <section class="card" aria-labelledby="convolution-server">
      <h2 id="convolution-server">{words.title}</h2>
      {error !== undefined && <ErrorNotice error={error} />}
      {value === undefined && error === undefined && <p role="status">{words.asking}</p>}
      {value === null && (
        <Notice title={words.absent(MODEL)}>
          <p>
            <a href={hashOf("models", { model: MODEL })}>{words.load}</a>
          </p>
        </Notice>
      )}
      {value && <Comparison answer={value} />}
    </section>
  );
}

function Comparison({ answer }: { readonly answer: readonly number[] }) {
  const words = text.value.convolution.server;
  const different = EXPECTED.filter((expected, index) => answer[index] !== expected).length;
  const filters = LAYER.filters.length;
  const side = Math.sqrt(answer.length / filters);
  return (
    <>
      <p class="hint">{words.intro(MODEL)}</p>
      <div class="convolution-planes">
        {LAYER.filters.map((_, filter) => (
          <Matrix
            key={filter}
            label={words.outputOf(filter)}
            rows={Array.from({ length: side }, (_, row) =>
              answer.slice((filter * side + row) * side, (filter * side + row + 1) * side),
            )}
          />
        ))}
      </div>
      <p class={different ? "disagrees" : "agrees"} role="status">
        {different ? `✗ ${words.differs(different)}` : `✓ ${words.agrees}`}
      </p>
    </>
  );
}

/** The 18 numbers; `null` where the model does not serve. */
async function askServer(signal: AbortSignal): Promise<readonly number[] | null> {
  const index = await repositoryIndex({ signal });
  if (!index.some(({ name, state }) => name === MODEL && state === "READY")) return null;
  const { inputs, outputs } = await modelMetadata(MODEL, { signal });
  const [input, output] = [inputs[0]?.name ?? "", outputs[0]?.name ?? ""];
  const shape = [1, VOLUME.length, VOLUME[0]?.length ?? 0, VOLUME[0]?.[0]?.length ?? 0];
  const data = Float32Array.from(VOLUME.flat(2));
  const answer = await infer(MODEL, [{ name: input, datatype: "FP32", shape, data }], [{ name: output }], { signal });
  const tensor = answer.get(output);
  return tensor ? [...floats(tensor)] : [];
}
