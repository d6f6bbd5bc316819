/** The page's words. English is the form; Portuguese has the same keys, or it does not compile. */

import { computed, effect, signal } from "@preact/signals";

import * as en from "./en";
import * as pt from "./pt";

export type Words = { readonly [View in keyof typeof en]: (typeof en)[View] };
export type Language = "en" | "pt";

/** Languages, by their own names. */
export const LANGUAGES: Readonly<Record<Language, string>> = { en: "English", pt: "Português" };

const DICTIONARIES: Readonly<Record<Language, Words>> = { en, pt };
const KEY = "convoy-language";

/** The first of a browser's languages that there is; English where there is none. */
export function languageOf(wanted: readonly string[]): Language {
  for (const tag of wanted) {
    const language = tag.toLowerCase().split("-")[0];
    if (language === "en" || language === "pt") return language;
  }
  return "en";
}

export const language = signal<Language>(
  typeof localStorage === "undefined" ? "en" : languageOf([localStorage.getItem(KEY) ?? "", ...navigator.languages]),
);

/** The words of the language that is set: `text.value.draw.title`. */
export const text = computed<Words>(() => DICTIONARIES[language.value]);

export function setLanguage(chosen: Language): void {
  language.value = chosen;
  localStorage.setItem(KEY, chosen);
}

/** A number as the language writes it. */
export function formatNumber(value: number, options: Intl.NumberFormatOptions = {}): string {
  return new Intl.NumberFormat(language.value, options).format(value);
}

if (typeof document !== "undefined") {
  effect(() => {
    document.documentElement.lang = language.value;
  });
}
