import { text } from "../../i18n";
import "./layers.css";

export function LayersView() {
  return <h1>{text.value.layers.title}</h1>;
}
