import { language, LANGUAGES, setLanguage, text, type Language } from "../i18n";

/** The language, by its own name. */
export function LanguageChoice() {
  return (
    <select
      class="language"
      aria-label={text.value.shell.language}
      value={language.value}
      onChange={(event) => setLanguage(event.currentTarget.value as Language)}
    >
      {Object.entries(LANGUAGES).map(([code, name]) => (
        <option key={code} value={code} lang={code}>
          {name}
        </option>
      ))}
    </select>
  );
}
