/** The buttons that load and unload a model, and what becomes of it. */

import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError } from "../../api/errors";
import { ErrorNotice, Notice } from "../../components/notice";
import { text } from "../../i18n";
import { isPending, order, orders } from "./control";
import type { Model } from "./repository";

interface ControlsProps {
  readonly model: Model;
  /** Whether this server loads models on request; unknown: it may. */
  readonly onRequest: boolean;
}

export function Controls({ model, onRequest }: ControlsProps) {
  const words = text.value.models.control;
  const [confirming, setConfirming] = useState(false);
  const serves = model.versions.some(({ state }) => state === "READY");
  const busy = isPending(model.name);
  return (
    <div class="model-controls">
      <div class="buttons" role="group" aria-describedby={onRequest ? undefined : "not-on-request"}>
        <button
          type="button"
          class={serves ? "" : "primary"}
          disabled={busy || !onRequest}
          onClick={() => void order(model.name, "load")}
        >
          {serves ? words.reload : words.load}
        </button>
        {serves && (
          <button type="button" disabled={busy || !onRequest} onClick={() => setConfirming(true)}>
            {words.unload}
          </button>
        )}
      </div>
      {!onRequest && (
        <p class="hint" id="not-on-request">
          {words.notHere}
        </p>
      )}
      <Outcome name={model.name} />
      <Confirmation
        name={model.name}
        open={confirming}
        onAnswer={(unload) => {
          setConfirming(false);
          if (unload) void order(model.name, "unload");
        }}
      />
    </div>
  );
}

/** How far the latest order is, or how it ended. */
function Outcome({ name }: { readonly name: string }) {
  const words = text.value.models.control;
  const latest = orders.value.get(name);
  const seconds = useSeconds(latest?.state === "pending" ? latest.since : null);
  if (latest === undefined) return null;
  const loads = latest.action === "load";
  if (latest.state === "failed") {
    const { error } = latest;
    if (!(loads && error instanceof ApiError && error.kind === "invalid")) return <ErrorNotice error={error} />;
    return (
      <Notice kind="error" title={words.failed(name)}>
        <p lang="en">{error.message}</p>
      </Notice>
    );
  }
  if (latest.state === "done") {
    return (
      <p class="hint" role="status">
        {loads ? words.loaded(name) : words.unloaded(name)}
      </p>
    );
  }
  const said = loads ? words.loading(name, seconds) : words.unloading(name, seconds);
  return (
    <p class="model-progress">
      <progress aria-label={loads ? words.loading(name, 0) : words.unloading(name, 0)} />
      <span>{said}</span>
    </p>
  );
}

interface ConfirmationProps {
  readonly name: string;
  readonly open: boolean;
  readonly onAnswer: (unload: boolean) => void;
}

function Confirmation({ name, open, onAnswer }: ConfirmationProps) {
  const words = text.value.models.control;
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  return (
    <dialog ref={dialog} aria-labelledby="unload-title" aria-describedby="unload-text" onCancel={() => onAnswer(false)}>
      <h2 id="unload-title">{words.confirmTitle(name)}</h2>
      <p id="unload-text">{words.confirmText}</p>
      <div class="buttons">
        <button type="button" onClick={() => onAnswer(false)}>
          {words.cancel}
        </button>
        <button type="button" class="primary" onClick={() => onAnswer(true)}>
          {words.unload}
        </button>
      </div>
    </dialog>
  );
}

/** Whole seconds since then, counted while this is shown. */
function useSeconds(since: number | null): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (since === null) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [since]);
  return since === null ? 0 : Math.max(0, Math.floor((now - since) / 1000));
}
