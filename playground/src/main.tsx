import { render } from "preact";

import { App } from "./app";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/controls.css";

const root = document.getElementById("app");
if (root === null) throw new Error("index.html has no element with the id app");
render(<App />, root);
