import { useLayoutEffect, useRef } from "preact/hooks";

import { dark } from "../../components/scheme";
import { coloured, DARK, inOwnColours, LIGHT, type FeatureMap } from "./maps";

interface MapCanvasProps {
  readonly map: FeatureMap;
  /** The magnitude of the deepest colour, where the map is not in colours of its own. */
  readonly most: number;
}

/** A map, a pixel for each value; the style sheet says how large, and what is around it says what it is. */
export function MapCanvas({ map, most }: MapCanvasProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const palette = dark.value ? DARK : LIGHT;
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    const pixels = map.inColour ? inOwnColours(map) : coloured(map, most, palette);
    context?.putImageData(new ImageData(pixels, map.width, map.height), 0, 0);
  }, [map, most, palette]);
  return <canvas ref={canvas} class="map" width={map.width} height={map.height} aria-hidden="true" />;
}

/** What the colours mean: from −most to most. */
export function Legend({ most, shown }: { readonly most: number; readonly shown: (value: number) => string }) {
  const map: FeatureMap = {
    width: LEGEND_STEPS,
    height: 1,
    values: Float32Array.from({ length: LEGEND_STEPS }, (_, at) => (2 * at) / (LEGEND_STEPS - 1) - 1),
    isVector: false,
  };
  return (
    <span class="map-legend number">
      {shown(-most)}
      <MapCanvas map={map} most={1} />
      {shown(most)}
    </span>
  );
}

const LEGEND_STEPS = 33;
