export const draw = {
  title: "Draw something",
  lead: "Draw a digit or a letter, and a network on this server says what it sees, while you draw.",
  paper: {
    label:
      "Paper: draw with a mouse, a finger or a pen. " +
      "With a keyboard, press the key of a character to print it, and Escape to clear the paper.",
    empty: "Draw here",
    keys: "Or press a key here, paste an image, or drop one.",
    undo: "Undo",
    clear: "Clear",
    open: "Open image…",
    broken: "This file is no image that the browser can show.",
    samples: "Real handwritten digits, to try",
    sample: (digit: number) => `A handwritten ${digit}`,
  },
  model: {
    sleeping: (name: string, state: string) => `${name} (${state.toLowerCase()})`,
    none: "No classifier is loaded",
    noneHint: "This view works with models that take one picture and have labels. Load one in the models view.",
  },
  answers: {
    title: "What the model sees",
    waiting: "The answer shows here as soon as you draw.",
    best: (label: string, percent: string) => `${label}, ${percent}`,
    shown: (milliseconds: string) => `${milliseconds} ms from hand to screen`,
    request: (milliseconds: string) => `${milliseconds} ms of it for the request`,
  },
  seen: {
    title: "The picture that it gets",
    size: (height: number, width: number) => `${height} × ${width} pixels`,
    inside: "Look inside of this network",
    alt: "Your drawing as the model gets it",
    centre: "Move the ink to the middle",
    centreHint: "Networks know ink of the size and at the place that they were trained with.",
    inverted: "This model does not say how its pictures are made: it gets light ink on dark, from 0 to 1.",
  },
};
