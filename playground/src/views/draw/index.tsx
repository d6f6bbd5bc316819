import { text } from "../../i18n";
import "./draw.css";

export function DrawView() {
  return <h1>{text.value.draw.title}</h1>;
}
