export const convoy = {
  title: "Convoy",
};
