"""How a report looks."""

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1.5rem 1rem 4rem;
  color: #223; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .8rem; border-bottom: 1px solid #dde; padding-bottom: .25rem; }
h3 { font-size: .95rem; margin: 0 0 .3rem; }
section > h3 { margin-top: 1.6rem; }
.state { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; background: #e8eef6; font-size: .9rem; }
.state.finished { background: #dcf0e3; }
.state.failed { background: #f8dcd6; }
.state.interrupted { background: #f8ecd0; }
.sub { color: #556; margin: .3rem 0 1rem; }
.cards { display: flex; flex-wrap: wrap; gap: .6rem; }
.cards div { background: #f4f6f9; border-radius: 8px; padding: .5rem .9rem; min-width: 110px; }
.cards b { display: block; font-size: 1.25rem; font-weight: 600; } .cards span { color: #556; font-size: .85rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1.2rem;
  margin-bottom: 1.2rem; }
.box { min-width: 0; }
svg { width: 100%; height: auto; display: block; font-family: inherit; } svg.chart { font-size: 11px; }
svg.square { font-size: 12px; max-width: 470px; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .2rem 0 0;
  padding: 0 0 0 3rem; font-size: .85rem; }
.legend i, .swatch { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .4em; }
.swatch { outline: 1px solid #0002; }
table { border-collapse: collapse; font-size: .9rem; } th { text-align: left; font-weight: 600; color: #445; }
td, th { padding: .16rem .7rem .16rem 0; vertical-align: top; border-bottom: 1px solid #eef; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.barcell { width: 160px; vertical-align: middle; }
.bar { display: block; height: .6em; background: #2563a8; border-radius: 2px; }
.facts td { overflow-wrap: anywhere; }
figure { margin: 0 0 .8rem; } figure img { width: 100%; display: block; border-radius: 4px; }
figcaption { font-size: .85rem; color: #556; padding-top: .15rem; }
.panels { display: flex; color: #556; font-size: .85rem; margin-top: .6rem; } .panels span { flex: 1; }
.two { display: flex; flex-wrap: wrap; gap: 1.6rem 2.4rem; align-items: flex-start; }
.two > * { flex: 1 1 380px; min-width: 0; }
.two + .two, .two + .box { margin-top: 1.4rem; }
.none { color: #778; }
pre { background: #f4f6f9; padding: .8rem; overflow-x: auto; font-size: .8rem; border-radius: 6px; }
summary { cursor: pointer; color: #2563a8; margin: .4rem 0; }
"""
