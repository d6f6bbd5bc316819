import type { draw as en } from "../en/draw";

export const draw: typeof en = {
  title: "Desenhe alguma coisa",
  lead: "Desenhe um algarismo ou uma letra, e uma rede neste servidor diz o que vê, enquanto desenha.",
  paper: {
    label:
      "Papel: desenhe com o rato, o dedo ou uma caneta. " +
      "Com o teclado, prima a tecla de um carácter para o imprimir, e Escape para limpar o papel.",
    empty: "Desenhe aqui",
    keys: "Ou prima uma tecla aqui, cole uma imagem ou largue-a aqui.",
    undo: "Desfazer",
    clear: "Limpar",
    open: "Abrir imagem…",
    broken: "Este ficheiro não é uma imagem que o navegador saiba mostrar.",
    samples: "Algarismos manuscritos reais, para experimentar",
    sample: (digit: number) => `Um ${digit} manuscrito`,
  },
  model: {
    sleeping: (name: string, state: string) => `${name} (${state.toLowerCase()})`,
    none: "Não há nenhum classificador carregado",
    noneHint:
      "Esta página trabalha com modelos que recebem uma imagem e têm etiquetas. Carregue um na página dos modelos.",
  },
  answers: {
    title: "O que o modelo vê",
    waiting: "A resposta aparece aqui assim que desenhar.",
    best: (label: string, percent: string) => `${label}, ${percent}`,
    shown: (milliseconds: string) => `${milliseconds} ms da mão ao ecrã`,
    request: (milliseconds: string) => `${milliseconds} ms deles para o pedido`,
  },
  seen: {
    title: "A imagem que ele recebe",
    size: (height: number, width: number) => `${height} × ${width} píxeis`,
    inside: "Ver esta rede por dentro",
    alt: "O seu desenho como o modelo o recebe",
    centre: "Levar a tinta para o meio",
    centreHint: "As redes conhecem a tinta no tamanho e no lugar com que foram treinadas.",
    inverted: "Este modelo não diz como são feitas as suas imagens: recebe tinta clara sobre fundo escuro, de 0 a 1.",
  },
};
