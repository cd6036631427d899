"""Rows for `spellingbee_local`: how often a letter is in a word. Our own phrasings and words.

nanochat's SpellingBee draws from 370 thousand words with other phrasings: numbers of the two are not comparable, hence
the name. Rows are a function of their number alone.
"""

import random
from collections.abc import Iterator

SEED = 10_000_000
"""Row i is drawn with SEED + i, beyond the seeds of any training set made by the same generator."""

WORDS = tuple(
    """
abandon absolute accident account achieve address advantage afternoon agreement airplane alphabet although amusement
ancient animal answer anybody apartment appearance appointment arrangement artificial assembly assistant atmosphere
attention audience authority avalanche balance balloon banana basketball battery beautiful beginning behavior believe
benefit bicycle biology blanket blossom borrow bottle boundary breakfast brilliant brother building butterfly cabbage
calendar camera candle capital careful carpenter carriage castle category cathedral celebrate ceremony certain champion
chapter character chemistry children chocolate cinnamon circle citizen civilization classroom climate clothing coffee
collection college combination comfortable committee communication community companion comparison competition complete
computer concentrate condition conference confidence connection consider construction container continue conversation
cooperation corridor cottage country courage creature cucumber curiosity current curtain customer dangerous daughter
december decision decorate delicious delivery democracy department description desert determine development diamond
dictionary difference difficult dinosaur direction disappear discover discussion distance dolphin education effective
elephant elevator emergency emotion employee encourage engineer enormous entertain environment equipment especially
establish evening example excellent exercise expensive experience experiment explain explosion expression extraordinary
familiar fantastic february festival finger fisherman flavor flower football foreign forest fortune foundation freedom
friendship furniture garden gasoline general generation geography giraffe government gradually grandmother grasshopper
guarantee guitar gymnastics hammer happiness harvest headache helicopter heritage history holiday honest horizon
hospital household however hundred hurricane identity illustrate imagination immediate importance impossible incredible
independent individual industry influence information ingredient instrument intelligence interesting international
interview invention invitation island jealous jewelry journalist journey kangaroo keyboard kingdom kitchen knowledge
laboratory landscape language laughter leather lemonade library lightning literature location luggage machine magazine
magnificent maintenance management manufacture marathon marriage mathematics meaning measurement medicine membership
memory message microscope millennium minute mirror mississippi mistake molecule moment monument morning mosquito
mountain movement multiply museum mushroom musician mystery narrative national natural necessary necessity neighbor
newspaper nothing november numerous objective observation occasion occurrence october official operation opinion
opportunity opposite orchestra ordinary organization original otherwise outside oxygen package painting paragraph
parallel parliament participate particular passenger patience peaceful pencil penguin people pepper perfect performance
permanent permission personality philosophy photograph physical pineapple platform pleasure poetry political pollution
popular population position possession possibility potato powerful practice preparation presentation president pressure
prevent principle privilege probably problem procedure production professional program pronunciation property protection
psychology publication punishment pyramid quality quantity question quotation raspberry reaction reality receive
recognize recommend recovery refrigerator region relationship remarkable remember republic resource responsibility
restaurant revolution rhythm rubbish sandwich satellite saturday scenery schedule science scissors secretary selection
sentence separate september serious several shadow shoulder signature similar situation skeleton society solution
somebody sophisticated spaghetti spectacular squirrel stomach strawberry structure student substance success sufficient
suggestion summer supermarket surface surprise suspicious sweater swimming symbol sympathy system tablecloth technology
telephone television temperature temporary territory theater therefore thousand thunder together tomorrow tournament
tradition transportation traveler treasure triangle trouble tuesday umbrella understand universe university upstairs
usually vacation valuable variety vegetable vehicle victory village vocabulary volcano volunteer waterfall weather
wednesday weekend whatever whisper wilderness window winter without witness wonderful worldwide yesterday zeppelin
""".split(None)  # noqa: SIM905 a list of 400 strings would fill the page
)

PHRASINGS = (
    "How many {letter} are in {word}",
    "How many times does {letter} occur in {word}",
    "Count the letter {letter} in {word}",
    "Tell me the number of {letter} in the word {word}",
    "In the word {word}, how often do you find {letter}",
    "What is the count of {letter} in {word}",
    "How often is {letter} written in {word}",
    "Go through {word} and count every {letter}",
    "Wie oft kommt {letter} in {word} vor",
    "Wie viele {letter} stehen in {word}",
    "Combien de {letter} y a-t-il dans {word}",
    "Combien de fois trouve-t-on {letter} dans {word}",
    "Cuantas veces aparece {letter} en {word}",
    "Quante volte compare {letter} in {word}",
    "Quantas letras {letter} tem {word}",
    "Hoe vaak staat {letter} in {word}",
)
QUOTES = ("", "'", '"')


def rows(count: int = 256) -> Iterator[dict[str, str]]:
    """{question, answer} for the numbers 0..count-1; the answer ends in "#### N"."""
    for number in range(count):
        yield row(number)


def row(number: int) -> dict[str, str]:
    """One question. Nine in ten ask for a letter that the word has."""
    rng = random.Random(SEED + number)
    word = rng.choice(WORDS)
    letter = rng.choice(word) if rng.random() < 0.9 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    phrasing = rng.choice(PHRASINGS)
    if rng.random() < 0.3:
        phrasing = phrasing.lower()
    quote, other = rng.choice(QUOTES), rng.choice(QUOTES)
    question = phrasing.format(letter=f"{quote}{letter}{quote}", word=f"{other}{word}{other}")
    if rng.random() < 0.5:
        question += "?"
    found = word.count(letter)
    return {
        "question": question,
        "answer": f"{word}: {', '.join(word)}. {letter} is there {found} times.\n#### {found}",
    }
