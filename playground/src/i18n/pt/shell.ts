import type { shell as en } from "../en/shell";

export const shell: typeof en = {
  navigation: "Páginas",
  skip: "Saltar para o conteúdo",
  language: "Língua",
  notHere: (model) => `“${model}” não serve aqui, ou não é para esta página: vê outro.`,
  loading: "A carregar…",
  model: "Modelo",
  lookAgain: "Procurar de novo",
  views: { draw: "Desenhar", layers: "Camadas", convolution: "Convolução", convoy: "Comboio", models: "Modelos" },
  token: {
    open: "Token",
    title: "Este servidor pede um token",
    label: "Token",
    kept: "Fica guardado neste separador até o fechar, e só é enviado a este servidor.",
    challenge: "Pede:",
    forget: "Esquecer",
    use: "Usar",
    cancel: "Agora não",
  },
  errors: {
    unreachable: "O servidor não responde",
    unauthenticated: "O servidor pede um token",
    forbidden: "Não tem permissão para isso",
    missing: "Isso não existe neste servidor",
    overloaded: "O servidor tem pedidos a mais neste momento",
    unavailable: "O servidor não pode fazer isso agora",
    late: "Demorou demasiado tempo",
    invalid: "O servidor não aceita isso",
    other: "Algo correu mal",
    again: (seconds: number) => `Tente de novo daqui a ${seconds} s.`,
  },
};
