import { text } from "../../i18n";
import "./models.css";

export function ModelsView() {
  return <h1>{text.value.models.title}</h1>;
}
