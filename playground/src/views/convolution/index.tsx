import { text } from "../../i18n";
import "./convolution.css";

export function ConvolutionView() {
  return <h1>{text.value.convolution.title}</h1>;
}
