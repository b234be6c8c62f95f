// What the search of the site puts first: pages that say how to do something, then the reference.
// Sphinx knows only whether a word is on a page, not how often.
var Scorer = {
  objNameMatch: 40, // whoever types the name of a function wants it
  objPartialMatch: 2,
  objPrio: { 0: 5, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,

  score: ([page, , , , score]) => {
    const [, worth] = Scorer.kinds.find(([names]) => names.test(page));
    return score + worth;
  },
  kinds: [
    [/^(guides\/|tutorial$|installation$|citing$|words$)/, 8],
    [/^(examples\/|reference\/settings|reference\/command_line$|errors$|file_formats$)/, 4],
    [/^(changelog|contributing|migration)$|^reference\/api\//, -4],
    [/^/, 0],
  ],
};
