/** The shell: the header, the navigation, and the view that the address names. */

import type { ComponentType } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { TokenDialog, TokenButton } from "./components/token";
import { LanguageChoice } from "./components/language";
import { text } from "./i18n";
import { followAddress, hashOf, place, VIEWS, type View } from "./navigation";
import { ConvolutionView } from "./views/convolution";
import { ConvoyView } from "./views/convoy";
import { DrawView } from "./views/draw";
import { LayersView } from "./views/layers";
import { ModelsView } from "./views/models";

const PAGES: Readonly<Record<View, ComponentType>> = {
  draw: DrawView,
  layers: LayersView,
  convolution: ConvolutionView,
  convoy: ConvoyView,
  models: ModelsView,
};

followAddress();

export function App() {
  const { view } = place.value;
  const shell = text.value.shell;
  const main = useRef<HTMLElement>(null);
  const shown = useRef(view);

  useEffect(() => {
    document.title = `${shell.views[view]} · Convoy`;
    if (shown.current !== view) {
      shown.current = view;
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
  }, [view, shell]);

  const Page = PAGES[view];
  return (
    <>
      <a class="skip" href="#main" onClick={skipTo(main)}>
        {shell.skip}
      </a>
      <header class="shell-header">
        <a class="brand" href={hashOf("draw")}>
          <img src="/favicon.svg" alt="" width="28" height="28" />
          <span>Convoy</span>
        </a>
        <nav aria-label={shell.navigation}>
          <ul>
            {VIEWS.map((each) => (
              <li key={each}>
                <a href={hashOf(each)} aria-current={each === view ? "page" : undefined}>
                  {shell.views[each]}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <div class="shell-tools">
          <TokenButton />
          <LanguageChoice />
        </div>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <Page key={view} />
      </main>
      <TokenDialog />
    </>
  );
}

/** The address names the view, so that a link into the page moves the focus itself. */
function skipTo(main: { readonly current: HTMLElement | null }) {
  return (event: Event): void => {
    event.preventDefault();
    main.current?.focus();
  };
}
