import { formatNumber, text } from "../../i18n";
import { Scrolls } from "./parts";
import { heat, mistakesOf, shares, type Matrix } from "./confusion";

const MOST_MISTAKES = 5;
const MOST_ROOMY_CLASSES = 14;

interface ConfusionProps {
  readonly matrix: Matrix;
  readonly labels: readonly string[];
}

/** The matrix as a table whose cells are warm, and its most frequent mistakes in words. */
export function ConfusionMatrix({ matrix, labels }: ConfusionProps) {
  const words = text.value.models.confusion;
  const parts = shares(matrix);
  const dense = labels.length > MOST_ROOMY_CLASSES;
  const mistakes = mistakesOf(matrix).slice(0, MOST_MISTAKES);
  return (
    <>
      <h4>{words.title}</h4>
      <p class="hint" id="matrix-caption">
        {words.caption}
      </p>
      <div class={dense ? "confusion dense" : "confusion"}>
        <Scrolls label={words.title}>
          <table class="matrix" aria-describedby="matrix-caption">
            <thead>
              <tr>
                <td class="matrix-corner">
                  <span>{words.truth} ↓</span>
                  <span>{words.answer} →</span>
                </td>
                {labels.map((label) => (
                  <th key={label} scope="col">
                    {label}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {matrix.map((row, truth) => (
                <tr key={labels[truth]}>
                  <th scope="row">{labels[truth]}</th>
                  {row.map((count, answer) => (
                    <td
                      key={answer}
                      class={count === 0 ? "nothing" : truth === answer ? "right" : "wrong"}
                      style={{ "--heat": heat(parts[truth]?.[answer] ?? 0) }}
                    >
                      {formatNumber(count)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </Scrolls>
        <div>
          <h4>{words.mistakes}</h4>
          {mistakes.length === 0 ? (
            <p class="hint">{words.none}</p>
          ) : (
            <ul class="mistakes">
              {mistakes.map(({ truth, answer, times }) => (
                <li key={`${truth}/${answer}`}>
                  <span class="number">{words.times(times)}</span>{" "}
                  {words.mistake(labels[truth] ?? "", labels[answer] ?? "")}
                </li>
              ))}
            </ul>
          )}
        </div>
      </div>
    </>
  );
}
