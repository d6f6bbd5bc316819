import { text } from "../../i18n";
import "./convoy.css";

export function ConvoyView() {
  return <h1>{text.value.convoy.title}</h1>;
}
