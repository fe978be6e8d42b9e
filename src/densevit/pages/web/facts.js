// What is known about the model, as text; everything goes through textContent, so nothing in it is ever markup.

export function fillFacts(place, about, answer) {
  const { metadata } = about;
  const rows = [
    ["Licence of the weights", metadata.licence],
    ["Licence of the code", metadata.licence_of_code],
    ["Data", metadata.card.data_licence],
    ["Exported from", metadata.source],
    ["Weights", about.storage],
    ["Agreement with the model", agreement(metadata.verified)],
    ...Object.entries(metadata.heads).map(([name, head]) => [`Head ${name}`, headText(head)]),
    ["Download", about.downloads],
    ["Runs with", about.runtime],
  ];
  if (answer) {
    rows.push(["Engine", answer.engine], ["Last prediction", `${answer.seconds.toFixed(1)} s`]);
    if (answer.memory) rows.push(["Memory of WebAssembly", `${(answer.memory / 1e6).toFixed(0)} MB`]);
    for (const note of answer.notes ?? []) rows.push(["Note", note]);
  }
  const table = Object.assign(document.createElement("table"), { className: "facts" });
  for (const [name, value] of rows) {
    if (!value) continue;
    const row = table.insertRow();
    row.append(Object.assign(document.createElement("th"), { textContent: name, scope: "row" }));
    row.insertCell().textContent = value;
  }
  place.replaceChildren(table);
}

function headText(head) {
  const parts = [head.task];
  if (head.classes.length) parts.push(`${head.classes.length} classes`);
  if (head.task === "depth" && !head.unit) parts.push("relative, without unit");
  if (head.canonical_focal_px) parts.push(`metres at a focal length of ${head.canonical_focal_px} pixels`);
  for (const [name, value] of Object.entries(head.metrics)) {
    if (typeof value === "number") parts.push(`${name} ${numberText(value)}`);
    else if (typeof value === "string") parts.push(`${name} ${value}`);
  }
  return parts.join(", ");
}

function agreement({ labels_equal: equal, largest_difference: largest }) {
  const parts = Object.entries(equal).map(([name, share]) => `${name} ${percentText(share)} equal labels`);
  const shown = Object.entries(largest).filter(([name]) => !name.endsWith(".entropy")); // which the page does not show
  for (const [name, value] of shown) parts.push(`${name} differs by up to ${(100 * value).toPrecision(2)} % of its range`);
  return parts.join("; ");
}

/** A number in three digits or so. */
export function numberText(value) {
  if (!Number.isFinite(value)) return "no value";
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

export function percentText(share) {
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  return `${(100 * share).toFixed(share < 0.1 ? 1 : share < 0.995 ? 0 : 1)} %`;
}
