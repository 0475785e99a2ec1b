"""The style sheet of the page: light and dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #fdfdfc; --raised: #ffffff; --ink: #1d2127; --soft: #5c646f; --faint: #8a919b;
  --rule: #e2e4e7; --track: #edeff1; --accent: #0b62c4; --good: #1c7c45; --bad: #b3361e;
  --warn-paper: #fff6e5; --warn-rule: #e9c46a;
  --teach: #7a8089; --train: #b3541e; --distill: #0b62c4; --prune: #1c7c45; --quantize: #8a3fa8;
  --ensemble: #b0861a; --baseline: #6b7a1f; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --raised: #1b1f25; --ink: #e7eaee; --soft: #a3abb6; --faint: #7c858f;
  --rule: #2c323a; --track: #262b32; --accent: #6cb0ff; --good: #63c98a; --bad: #ff8f76;
  --warn-paper: #2b2416; --warn-rule: #7d6425;
  --teach: #a9b0ba; --train: #f0a070; --distill: #6cb0ff; --prune: #63c98a; --quantize: #cf9be6;
  --ensemble: #e2bd5a; --baseline: #b9c66a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  -webkit-text-size-adjust: 100%; }
main { max-width: 1220px; margin: 0 auto; padding: 40px 28px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.015em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .9rem; letter-spacing: -.01em; }
h3 { font-size: 1.02rem; margin: 0; overflow-wrap: anywhere; }
p { margin: 0 0 .8rem; max-width: 72ch; }
a { color: var(--accent); }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.lead, figcaption, .more { color: var(--soft); }
.lead { margin-bottom: 1.6rem; max-width: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr)); gap: 14px; }
.tile { border: 1px solid var(--rule); border-radius: 10px; padding: 16px 18px; background: var(--raised); }
.tile b { display: block; font-size: 1.75rem; line-height: 1.2; font-weight: 620;
  font-variant-numeric: tabular-nums; letter-spacing: -.02em; }
.tile span { display: block; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.tile .what { color: var(--ink); font-weight: 600; font-size: .95rem; }
.notes { border: 1px solid var(--warn-rule); background: var(--warn-paper); border-radius: 10px;
  padding: 12px 18px; margin: 1.6rem 0 0; }
.notes summary { font-weight: 600; cursor: pointer; }
.notes ul { margin: .6rem 0 .2rem; padding-left: 1.1rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: 10px; background: var(--raised); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 8px; text-align: left; white-space: nowrap; vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .82rem; border-bottom: 1px solid var(--rule); }
tbody tr + tr td { border-top: 1px solid var(--rule); }
tbody tr:hover td { background: var(--track); }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--raised); }
tbody tr:hover td:first-child { background: var(--track); }
td:first-child { font-weight: 600; white-space: normal; min-width: 8rem; max-width: 11.5rem; overflow-wrap: break-word; }
td small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); line-height: 1.35; }
td small .tag { margin-left: 0; }
td.wrap { white-space: normal; min-width: 7rem; overflow-wrap: break-word; }
td.n, th.n { text-align: right; }
.yes { color: var(--good); } .no { color: var(--bad); }
.tag { display: inline-block; font-size: .72rem; font-weight: 600; font-style: normal; white-space: nowrap; color: var(--soft); background: none;
  border: 1px solid var(--rule); border-radius: 99px; padding: 0 8px; margin-left: 6px; vertical-align: 1px; }
.tag.no { border-color: currentColor; color: var(--bad); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 18px; }
.parts { display: grid; grid-template-columns: minmax(0, 1.22fr) minmax(0, 1fr); gap: 20px 36px; align-items: start; }
.parts > div { display: grid; gap: 20px; min-width: 0; }
.key { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 10px; font-size: .88rem; color: var(--soft); }
.key span { display: inline-flex; align-items: center; gap: 5px; } .key svg { width: 16px; height: 16px; }
figure { margin: 0; min-width: 0; }
figure .draw { overflow-x: auto; }
figcaption { font-size: .86rem; line-height: 1.45; margin-top: .35rem; max-width: 68ch; }
figcaption b { color: var(--ink); font-weight: 600; }
.card { border: 1px solid var(--rule); border-radius: 10px; background: var(--raised); padding: 18px 20px 20px; }
article.card + article.card { margin-top: 16px; }
.card > header { margin-bottom: 14px; }
.card .more { font-size: .88rem; margin: 2px 0 0; max-width: none; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; font: 13.5px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
svg text { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .tick { fill: var(--soft); font-size: 13px; } svg .label { fill: var(--soft); font-size: 13px; font-weight: 600; }
svg .name { font-size: 13.5px; font-weight: 600; paint-order: stroke; stroke: var(--raised); stroke-width: 3px; stroke-linejoin: round; }
.grid { stroke: var(--rule); stroke-width: 1; } .axis { stroke: var(--faint); stroke-width: 1; }
.limit { stroke: var(--bad); stroke-width: 1.4; stroke-dasharray: 5 4; } svg .limit-words { fill: var(--bad); font-size: 12.5px; }
.front { fill: none; stroke: var(--faint); stroke-width: 1.5; }
.faint { opacity: .5; } .interval { stroke-width: 1.6; opacity: .55; } .point { stroke: var(--raised); stroke-width: 1.2; }
.s-teach { fill: var(--teach); } .s-train { fill: var(--train); } .s-distill { fill: var(--distill); }
.s-prune { fill: var(--prune); } .s-quantize { fill: var(--quantize); } .s-ensemble { fill: var(--ensemble); } .s-other { fill: var(--ink); }
.interval.s-teach { stroke: var(--teach); } .interval.s-train { stroke: var(--train); }
.interval.s-distill { stroke: var(--distill); } .interval.s-prune { stroke: var(--prune); }
.interval.s-quantize { stroke: var(--quantize); } .interval.s-ensemble { stroke: var(--ensemble); } .interval.s-other { stroke: var(--ink); }
.s-baseline { fill: var(--baseline); } .interval.s-baseline { stroke: var(--baseline); }
.interval.s-quantize { stroke: var(--quantize); } .interval.s-other { stroke: var(--ink); }
.cell { rx: 3px; } .right { fill: color-mix(in srgb, var(--accent) var(--share), var(--track)); }
.wrong { fill: color-mix(in srgb, var(--bad) var(--share), var(--track)); }
svg .share { font-size: 13.5px; font-weight: 600; } svg .clips { font-size: 11px; fill: var(--soft); }
svg .strong { fill: var(--paper); } svg .none { fill: var(--faint); font-weight: 400; }
.fill { fill: var(--accent); } .fill.floor { fill: var(--bad); }
.track { fill: var(--track); rx: 3px; } .bar { fill: var(--accent); rx: 3px; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; } .train { stroke: var(--faint); } .check { stroke: var(--accent); }
.kept { stroke: var(--train); stroke-width: 1.3; stroke-dasharray: 4 3; }
.lineage { fill: none; stroke: var(--faint); stroke-width: 1.5; } .taught { stroke-dasharray: 4 3; }
.run { fill: var(--raised); stroke: var(--rule); rx: 4px; } svg .run-name { font-weight: 600; }
.lineage-card svg { margin: 0 auto 0 0; }
footer { margin-top: 3.2rem; padding-top: 1.2rem; border-top: 1px solid var(--rule); color: var(--soft); font-size: .88rem; }
footer li { margin: .15rem 0; } footer ul { padding-left: 1.1rem; margin: .4rem 0 0; }
@media (max-width: 600px) { main { padding: 26px 16px 48px; } h1 { font-size: 1.55rem; } h2 { margin-top: 2.3rem; }
  .card { padding: 14px 14px 16px; } td:first-child { min-width: 6.6rem; max-width: 8.4rem; } }
@media (max-width: 760px) { .parts { grid-template-columns: minmax(0, 1fr); } }
@media print { .card, .tile { break-inside: avoid; } }
"""  # noqa: E501
