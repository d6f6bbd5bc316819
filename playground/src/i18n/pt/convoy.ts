import type { convoy as en } from "../en/convoy";

export const convoy: typeof en = {
  title: "Ver o comboio",
  lead:
    "Os pedidos que chegam com o modelo ocupado esperam e depois viajam juntos: um comboio, ou seja, um lote. " +
    "Peça ao modelo mais do que ele consegue, e veja o que cada política faz disso.",
  policies: {
    window: "janela",
    slo: "objetivo de latência",
    sequence: "sequências",
    ensemble: "conjunto",
    single: "um a um",
  },
  readings: {
    idle: "Neste momento ninguém pede nada. Inicie a carga e veja como os pedidos partilham lotes.",
    keepsUp: "O modelo acompanha: os pedidos quase não esperam, e quase todos têm resposta dentro do objetivo.",
    filling:
      "Chega mais do que o modelo consegue, ou ele foi travado: a fila cresce, todos esperam mais, e menos respostas " +
      "chegam dentro do objetivo, embora o modelo trabalhe sempre.",
    windowFull:
      "A fila está cheia. Quem entra espera por todos os que já lá estavam, por isso as respostas chegam tarde, e o resto " +
      "é recusado. O modelo faz tanto como antes, mas quase nada a tempo: as respostas úteis caem a pique.",
    sloKeepsUp: "O modelo acompanha, e promete-o: cada pedido entra porque pode ter resposta dentro do objetivo.",
    sloRefuses:
      "Chega mais do que o modelo consegue. O que não poderia ter resposta dentro do objetivo é recusado logo, e pode " +
      "tentar noutro lado; o resto tem resposta a tempo. A fila fica curta, e as respostas úteis ficam perto do máximo.",
  },
  model: {
    none: "Não há modelo para ver",
    noneHint: "Esta página precisa de um modelo carregado, que aceite lotes e tenha entradas de tamanho fixo.",
  },
  road: {
    alt: "Uma estrada: os pedidos chegam à esquerda, esperam à porta e partem em comboios para a direita. Os números abaixo dizem o mesmo.",
    waiting: (count: string) => `${count} à espera`,
    refused: "recusados",
    rows: (count: string) => `${count} linhas`,
    legend: { request: "um pedido", engine: "frente de um lote", refused: "um pedido recusado" },
    oneIn: (count: string) => `Desenha-se um lote em cada ${count}.`,
    policy: (policy: string) => `Política: ${policy}`,
  },
  load: {
    title: "Carga oferecida",
    factor: "Carga, em múltiplos do que o modelo consegue",
    value: (factor: string, rate: string) => `${factor} ×, ou seja ${rate} pedidos/s`,
    start: "Iniciar a carga",
    stop: "Parar a carga",
    capacity: (rate: string, rows: string) =>
      `O modelo faz cerca de ${rate} pedidos de ${rows} linhas por segundo: assim se mediu antes de servir. Faz menos quando a máquina tem mais que fazer, como mostrar esta página.`,
    unmeasured: "O modelo não foi medido, por isso ninguém sabe o que consegue.",
    honest:
      "É o próprio servidor que faz estes pedidos: números ao acaso, em momentos ao acaso (um processo de Poisson), " +
      "diretos para a fila do modelo. Não há rede pelo meio, e fazê-los gasta também processador. Acabam quando sair daqui.",
    skipped: (count: string) => `${count} pedidos não foram enviados, porque o servidor não teve tempo para os enviar.`,
  },
  policy: {
    title: "Quando chega mais do que sai",
    window: "Janela",
    windowHint: "Todos podem esperar, até a fila encher.",
    slo: "Objetivo de latência",
    sloHint: "Quem não pode ter resposta a tempo é recusado logo.",
    objective: "Objetivo, em milissegundos",
    changed: (rows: string) =>
      `O modelo foi carregado com esta política e lotes até ${rows} linhas. Volta à sua configuração quando sair daqui.`,
    restore: "Devolver já",
    fixed: "Este servidor não carrega modelos a pedido, por isso a carga vai para o modelo como está.",
    failed: "Aqui não se pode mudar a política, por isso a carga vai para o modelo como está",
    busy: "O modelo está a ser carregado com a nova política…",
  },
  figures: {
    title: "Agora",
    waiting: "na fila",
    waitingRows: (rows: string) => `${rows} linhas`,
    p50: "latência mediana",
    p99: "percentil 99",
    answered: "respostas por segundo",
    goodput: "delas a tempo",
    refused: "recusados por segundo",
    objective: (milliseconds: string) => `em até ${milliseconds} ms`,
    ofOffered: (percent: string) => `${percent} do que chegou`,
    running: (requests: string) => `${requests} em execução`,
    none: "–",
    seconds: (value: string) => `${value} s`,
    milliseconds: (value: string) => `${value} ms`,
  },
  charts: {
    title: (seconds: string) => `Os últimos ${seconds} segundos`,
    latency: "Latência, ms",
    rates: "Pedidos por segundo",
    queue: "Pedidos na fila",
    sizes: "Pedidos num lote",
    sizesHint: "últimos 3 s",
    sizeRange: (from: string, to: string) => `${from}–${to}`,
    share: (requests: string, percent: string) => `${requests}: ${percent}`,
    noBatches: "Nenhum lote correu.",
    objective: "objetivo",
    series: {
      p50: "mediana",
      p99: "percentil 99",
      answered: "respondidos",
      inTime: "a tempo",
      failed: "recusados",
      waiting: "à espera",
    },
  },
  tables: {
    batches: "Os últimos lotes",
    columns: { requests: "Pedidos", rows: "Linhas", waited: "Maior espera", took: "Demorou" },
    reasons: "Recusados e falhados, por motivo",
    reason: "Motivo",
    perSecond: "Por segundo",
    noReasons: "Nenhum nos últimos segundos.",
    names: {
      queue_full: "a fila está cheia",
      overloaded: "não poderia ser a tempo",
      too_late: "o seu tempo acabou enquanto esperava",
      memory: "a memória do servidor para pedidos está cheia",
      not_ready: "o modelo não estava pronto",
      unknown_model: "esse modelo não existe agora",
    },
  },
};
