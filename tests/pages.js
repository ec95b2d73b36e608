// What tests look at in a page; evaluated there.
({
  // Least contrast (WCAG 2.2, 1.4.3) of the text in each sort of element that is shown.
  contrast: () => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgb = (colour) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return Array.from(canvas.getImageData(0, 0, 1, 1).data);
    };
    const light = (colour) => {
      const [r, g, b] = colour.map((one) => {
        const part = one / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (node) => {
      for (let one = node; one; one = one.parentElement) {
        const colour = rgb(getComputedStyle(one).backgroundColor);
        if (colour[3] === 255) return colour;
      }
      return [255, 255, 255, 255];
    };
    const found = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest(".unseen, .skip, :disabled")) continue;
      const style = getComputedStyle(node);
      const svg = node instanceof SVGElement;
      if (svg && node.tagName !== "text") continue;
      const [a, b] = [light(rgb(svg ? style.fill : style.color)), light(ground(node))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      const key = `${node.tagName}.${node.className.baseVal ?? node.className}`;
      if (!(found.get(key) <= ratio)) found.set(key, ratio);
    }
    return Object.fromEntries(found);
  },

  // What a screen reader would miss: names, the order of headings, ids that are there twice.
  unnamed: () => {
    const wrong = [];
    for (const one of document.querySelectorAll("input, textarea, select, button, svg[role], [role=listbox], [role=region]")) {
      if (!one.checkVisibility()) continue;
      const name = one.getAttribute("aria-label") || (one.labels?.length && one.labels[0].textContent.trim())
        || (one.tagName === "BUTTON" && one.textContent.trim());
      if (!name) wrong.push(one.outerHTML.slice(0, 120));
    }
    const levels = Array.from(document.querySelectorAll("h1, h2, h3, h4"), (one) => one)
      .filter((one) => one.checkVisibility()).map((one) => Number(one.tagName[1]));
    levels.forEach((level, i) => {
      if (level > (levels[i - 1] ?? 0) + 1) wrong.push(`h${level} behind h${levels[i - 1] ?? 0}`);
    });
    const ids = Array.from(document.querySelectorAll("[id]"), (one) => one.id);
    wrong.push(...ids.filter((one, i) => ids.indexOf(one) !== i).map((one) => `twice ${one}`));
    if (document.querySelectorAll("h1").length !== 1) wrong.push("not one h1");
    if (document.querySelectorAll("[aria-live], [role=status], [role=alert]").length !== 2) wrong.push("live regions");
    return wrong;
  },

  // What pairing readings of two texts gives, each case two entries of reports.
  spans: async (cases) => {
    const units = await import("/static/units.js");
    const written = (some) => some.map((unit) => unit.text).join("");
    return cases.map((entries) => {
      const [a, b] = entries.map((one) => units.read({ texts: [one] }));
      const { spans } = units.pair(a, b);
      const all = ({ units }, side) => {
        const found = spans.flatMap((one) => one[side]);
        return found.length === units.length && found.every((one, i) => one === units[i]);
      };
      return {
        whole: all(a, "a") && all(b, "b"),
        texts: [a, b].every((one) => written(one.units) === one.entry.text),
        alike: spans.every((one) => !one.same || written(one.a) === written(one.b)),
        sum: spans.reduce((sum, one) => sum + one.difference, 0),
      };
    });
  },
})
