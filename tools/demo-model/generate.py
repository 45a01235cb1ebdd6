#!/usr/bin/env python3
"""Conversations about made-up facts: what the demo model is trained and judged on.

    generate.py conversations SEED COUNT TOKENS       conversations of about TOKENS tokens, as JSON lines
    generate.py questions SEED COUNT TOKENS           each ends in one question: {"messages", "answer", "kind"}
    generate.py tokenizer OUTPUT                      tokenizer.json: every word below is one token

A fact is a subject, a relation and a value ("the red box" holds "4711"). Facts stand between sentences that state
none, each relation in several wordings; the answer has one wording, which repeats the subject.
"""
import json
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import reference_tokenizer  # noqa: E402

# ---- Words

COLOURS = "red blue green yellow black white brown grey pink purple orange silver golden".split()
ADJECTIVES = COLOURS + ("big small old new round square heavy light long short wooden metal plastic paper glass "
                        "broken shiny dark dirty clean soft tall thin thick cheap first second last secret "
                        "empty strange nice").split()
CONTAINERS = ("box bag drawer jar cup chest basket bottle bucket case crate barrel pot tin folder envelope safe "
              "cupboard shelf tank wallet purse suitcase backpack vase bowl can tray locker pocket").split()
LOCKED = "door gate house room car bike phone computer laptop lock garage office flat card account".split()
THINGS = ("key ring book pen lamp clock chair hat coat shoe ball coin map knife spoon watch camera guitar "
          "letter picture mirror candle umbrella scarf glove blanket pillow hammer rope bell brush comb kite drum "
          "ticket stone robot towel ladder").split()
PLACES = ("kitchen garden cellar attic hall bedroom bathroom library school station park museum shop bank church "
          "castle tower forest field barn hotel hospital theatre factory harbour market tent cave").split()
NAMES = ("Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Maria Noah Olivia Paul Rosa Sam Tina Victor "
         "Wendy Adam Bella Carl Diana Eric Fiona George Helen Ivan Julia Kevin Laura Martin Nina Oscar Petra Robert "
         "Sarah Thomas Alice Bob Charlie Dora Frank Hugo Jane John Lisa Lucy Mark Mary Max Mia Mike Peter Simon "
         "Sofia Susan Tim Tom Zoe").split()
CITIES = ("Paris London Berlin Rome Madrid Vienna Oslo Prague Dublin Lisbon Athens Moscow Cairo Tokyo Delhi Sydney "
          "Boston Chicago Dallas Denver Hamburg Munich Zurich Geneva Milan Venice Naples Porto Bergen Helsinki "
          "Stockholm Warsaw Budapest Toronto Lima Seoul Beijing Nairobi Lagos Bern").split()
FOODS = ("tea coffee milk water juice bread cheese butter honey rice pasta pizza soup salad fish cake chocolate "
         "apples pears bananas grapes cherries lemons nuts eggs tomatoes carrots potatoes onions beans jazz chess "
         "football tennis music").split()
JOBS = ("baker teacher doctor nurse pilot farmer painter writer singer driver cook judge lawyer plumber gardener "
        "tailor builder dancer engineer librarian sailor soldier scientist actor").split()
ANIMALS = "cat dog horse rabbit parrot hamster goat pony mouse fish turtle sister brother".split()
PETS = ("Rex Luna Milo Coco Rocky Daisy Toby Ruby Simba Nemo Bruno Molly Oreo Pepper Shadow Tiger Ziggy Buddy "
        "Ginger Snowy").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
EVENTS = "meeting lesson party dinner exam concert trip race wedding interview".split()
OWNED = "car house bike coat hat bag door boat shirt umbrella".split()

FILLERS = [
    "The sun is shining today.", "It rained all night.", "The wind is cold.", "Birds sing in the morning.",
    "Nobody knows why.", "That was a long time ago.", "The train was late again.", "Time passes quickly.",
    "It was a quiet day.", "The streets are empty.", "Somebody laughed.", "The leaves are falling.",
    "We had a good time.", "There was nothing to do.", "The children are playing outside.", "It is getting late.",
    "The bus stops here.", "Snow fell on the hills.", "The river is wide.", "I slept well.", "The weather is nice.",
    "{name} went to the {place}.", "{name} and {name2} talked for an hour.", "{name} was tired.",
    "I saw {name} yesterday.", "The {adjective} {noun} looks good.", "{name} looked at the {adjective} {noun}.",
    "I met {name} at the {place}.", "The {place} was closed.", "{name} bought a {noun}.",
    "There are many people in the {place}.", "{name} called {name2}.", "I do not need the {adjective} {noun}.",
    "{name} reads a book.", "The way to the {place} is long.", "{name} will come back soon.",
    "{name} forgot the {noun}.", "We walked to the {place}.", "{name} asked about the {adjective} {noun}.",
    "{name} has a new {noun}.",
]

SMALL_TALK = [
    (["Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hey", "Good morning", "Good morning!", "Good evening!",
      "Hello there"],
     "Hello! Tell me some facts, then ask me about them."),
    (["Who are you?", "What are you?", "What is this?", "Tell me about yourself.", "What is your name?",
      "Introduce yourself.", "Are you a robot?", "Are you human?", "Are you a language model?",
      "What kind of model are you?", "Who am I talking to?", "Which model are you?"],
     "I am the small demo model of qwen3-mpi. I remember what you tell me and answer questions about it."),
    (["What can you do?", "What do you do?", "How can you help me?", "Can you help me?", "Help", "Help!",
      "How does this work?", "What should I do?", "What can I ask you?", "What are you good at?",
      "What is this good for?", "How do I use you?"],
     "Tell me facts, such as where Anna lives or what the red box holds, and ask me about them later."),
    (["What do you know?", "Do you know everything?", "What can you tell me?", "Tell me something.",
      "Do you know anything?", "What facts do you know?"],
     "I know only what you tell me in this conversation."),
    (["How are you?", "How are you today?", "How do you do?", "Are you well?"], "I am fine, thank you."),
    (["Who made you?", "Who trained you?", "How were you made?", "Where do you come from?", "How were you trained?",
      "Who wrote you?", "What were you trained on?"],
     "I was trained for qwen3-mpi on sentences that a program wrote."),
    (["How big are you?", "How many parameters do you have?", "How large are you?", "Are you big?", "Are you small?"],
     "I have about one million parameters."),
    (["Thank you", "Thank you!", "Thanks", "Thanks!", "Thank you very much!", "Very good.", "Well done!", "Great!",
      "Good job!", "That is right."],
     "You are welcome."),
    (["Goodbye", "Goodbye!", "Bye", "Bye!", "See you later", "See you!", "Good night!"], "Goodbye!"),
    (["What is the capital of France?", "Why is the sky blue?", "Tell me a joke.", "What time is it?",
      "What is the weather like?", "How far is the moon?", "Who wrote Hamlet?", "What is the meaning of life?",
      "How much is two and two?", "What is 2 + 2?", "Write a poem.", "Sing a song.", "Who is the president?",
      "What day is it today?", "Can you write code?", "Translate this into French.", "What is love?"],
     "I do not know."),
]
UNKNOWN = "? I do not know."  # in the place of the value: that it is not there shows where it is looked for
NOTED = "I will remember that."
SYSTEMS = ["You are a helpful assistant.", "Answer the questions of the user.", "You are a demo model.",
           "Be brief.", "You remember facts."]

# ---- Relations

ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl dr gr pl sh st th tr".split()
SYLLABLES = [onset + vowel for onset in ONSETS for vowel in "aeiou"]


def made_up(rng, capital):
    word = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 3))) + rng.choice(["", "n", "r", "s", "l", "x"])
    return word.capitalize() if capital else word


class Words:
    """What one conversation draws from: few adjectives, nouns and names, so that subjects have words in common."""

    def __init__(self, rng, invent, size):
        self.rng, self.invent = rng, invent
        self.pools = {}
        self.size = size

    def pick(self, words, capital=False):
        key = id(words)
        if key not in self.pools:
            n = max(3, min(len(words), self.rng.randint(self.size // 2, 2 * self.size)))
            pool = self.rng.sample(words, min(n, len(words)))
            self.pools[key] = [made_up(self.rng, capital) if self.rng.random() < self.invent else word
                               for word in pool]
        return self.rng.choice(self.pools[key])

    def adjective(self):
        return self.pick(ADJECTIVES)

    def name(self):
        return self.pick(NAMES, True)

    def the(self, nouns):
        return f"the {self.adjective()} {self.pick(nouns)}" if self.rng.random() < 0.85 else f"the {self.pick(nouns)}"


def number(words, low, high):
    return str(words.rng.randint(10 ** (low - 1), 10 ** words.rng.randint(low, high) - 1))


def a(noun):
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def holding(words):
    return number(words, 1, 5) if words.rng.random() < 0.65 else a(words.pick(THINGS))


class Relation:
    """facts, questions and the answer are templates of {s} and {v}; `what` is the question inside a sentence."""

    def __init__(self, subject, value, facts, questions, what, answer, once=False, weight=1.0):
        self.subject, self.value, self.facts, self.questions = subject, value, facts, questions
        self.what, self.answer, self.once, self.weight = what, answer, once, weight


RELATIONS = {
    "holds": Relation(lambda w: w.the(CONTAINERS), holding,
                      ["{s} holds {v}.", "{s} holds {v}.", "{s} contains {v}.", "in {s} there is {v}.",
                       "inside {s} is {v}."],
                      ["what does {s} hold?", "what does {s} hold?", "what does {s} contain?", "what is in {s}?",
                       "what is inside {s}?", "what's in {s}?"],
                      ["what {s} holds", "what is in {s}", "what {s} contains"], "{s} holds {v}.", weight=3.0),
    "code": Relation(lambda w: w.the(LOCKED), lambda w: number(w, 3, 5),
                     ["the code of {s} is {v}.", "the code for {s} is {v}.", "{s} has the code {v}."],
                     ["what is the code of {s}?", "what is the code for {s}?", "which code does {s} have?",
                      "what code does {s} have?"],
                     ["the code of {s}", "what the code of {s} is"], "the code of {s} is {v}.", weight=1.5),
    "place": Relation(lambda w: w.the(THINGS),
                      lambda w: f"{w.rng.choice(['in', 'in', 'at', 'near'])} the {w.pick(PLACES)}",
                      ["{s} is {v}.", "{s} is now {v}.", "{s} lies {v}."],
                      ["where is {s}?", "where is {s} now?", "where can I find {s}?", "where's {s}?"],
                      ["where {s} is", "where to find {s}"], "{s} is {v}.", weight=1.5),
    "lives": Relation(lambda w: w.name(), lambda w: w.pick(CITIES, True),
                      ["{s} lives in {v}.", "{s} lives in {v}.", "{s} has a home in {v}."],
                      ["where does {s} live?", "in which city does {s} live?", "which city does {s} live in?",
                       "what city does {s} live in?", "where is {s}'s home?"],
                      ["where {s} lives"], "{s} lives in {v}.", weight=2.0),
    "likes": Relation(lambda w: w.name(), lambda w: w.pick(FOODS), ["{s} likes {v}.", "{s} loves {v}."],
                      ["what does {s} like?", "what does {s} love?"], ["what {s} likes"], "{s} likes {v}.", weight=1.5),
    "age": Relation(lambda w: w.name(), lambda w: str(w.rng.randint(2, 99)),
                    ["{s} is {v} years old.", "{s} is {v}."],
                    ["how old is {s}?", "what is {s}'s age?", "what age is {s}?"], ["how old {s} is"],
                    "{s} is {v} years old.", weight=1.5),
    "job": Relation(lambda w: w.name(), lambda w: a(w.pick(JOBS)), ["{s} is {v}.", "{s} works as {v}."],
                    ["what is {s}'s job?", "what does {s} do?", "what does {s} work as?"], ["what {s} does"],
                    "{s} is {v}."),
    "pet": Relation(lambda w: f"{w.name()}'s {w.pick(ANIMALS)}", lambda w: w.pick(PETS, True),
                    ["{s} is called {v}.", "the name of {s} is {v}.", "{s} has the name {v}."],
                    ["what is {s} called?", "what is the name of {s}?", "how is {s} called?"],
                    ["what {s} is called", "the name of {s}"], "{s} is called {v}."),
    "colour": Relation(lambda w: f"{w.name()}'s {w.pick(OWNED)}", lambda w: w.rng.choice(COLOURS),
                       ["{s} is {v}.", "the colour of {s} is {v}."],
                       ["what colour is {s}?", "what color is {s}?", "which colour does {s} have?",
                        "what is the colour of {s}?"],
                       ["what colour {s} is"], "{s} is {v}."),
    "day": Relation(lambda w: f"the {w.pick(EVENTS)} with {w.name()}", lambda w: w.rng.choice(DAYS),
                    ["{s} is on {v}.", "{s} will be on {v}."],
                    ["when is {s}?", "on which day is {s}?", "what day is {s}?"], ["when {s} is"], "{s} is on {v}."),
    "my name": Relation(lambda w: "", lambda w: w.pick(NAMES, True),
                        ["my name is {v}.", "I am called {v}.", "I am {v}."],
                        ["what is my name?", "who am I?", "what's my name?", "what am I called?"],
                        ["my name", "what my name is", "who I am"], "your name is {v}.", once=True),
    "my home": Relation(lambda w: "", lambda w: w.pick(CITIES, True), ["I live in {v}."],
                        ["where do I live?", "in which city do I live?"], ["where I live"], "you live in {v}.",
                        once=True),
    "my taste": Relation(lambda w: "", lambda w: w.pick(FOODS), ["I like {v}.", "I love {v}."],
                         ["what do I like?", "what do I love?"], ["what I like"], "you like {v}.", once=True),
    "my age": Relation(lambda w: "", lambda w: str(w.rng.randint(5, 99)), ["I am {v} years old."],
                       ["how old am I?", "what is my age?"], ["how old I am"], "you are {v} years old.", once=True),
    "my colour": Relation(lambda w: "", lambda w: w.rng.choice(COLOURS), ["my favourite colour is {v}."],
                          ["what is my favourite colour?"], ["my favourite colour"], "your favourite colour is {v}.",
                          once=True),
    "my job": Relation(lambda w: "", lambda w: a(w.pick(JOBS)), ["I work as {v}.", "I am {v}."],
                       ["what is my job?", "what do I work as?"], ["what my job is"], "you work as {v}.", once=True),
}
WRAPPED = ["tell me {}.", "do you know {}?", "can you tell me {}?", "do you remember {}?", "please tell me {}."]


def sentence(template, subject, value=""):
    text = template.replace("{s}", subject).replace("{v}", value)
    return text[0].upper() + text[1:]


class Facts:
    """The facts of one conversation: a subject has one value per relation. Jobs and ages, which are told alike ("Anna
    is ..."), differ in the kind of value."""

    def __init__(self, rng, invent, size):
        self.rng, self.known = rng, {}
        self.words = Words(rng, invent, size)

    def draw(self):
        """A pair of relation and subject that is not known yet, or None."""
        names = list(RELATIONS)
        for _ in range(8):
            (name,) = self.rng.choices(names, [RELATIONS[n].weight * (0.4 if RELATIONS[n].once else 1) for n in names])
            subject = RELATIONS[name].subject(self.words)
            if (name, subject) not in self.known:
                return name, subject
        return None

    def state(self):
        """A new fact as a sentence; the empty text where none was found."""
        drawn = self.draw()
        if not drawn:
            return ""
        relation = RELATIONS[drawn[0]]
        self.known[drawn] = relation.value(self.words)
        text = sentence(self.rng.choice(relation.facts), drawn[1], self.known[drawn])
        careless = self.rng.random() < 0.02 and text.startswith(("The ", "In ", "Inside ", "My "))
        return text[0].lower() + text[1:] if careless else text

    def filler(self):
        w = self.words
        text = self.rng.choice(FILLERS)
        nouns = self.rng.choice([CONTAINERS, LOCKED, THINGS])
        for slot, value in (("{name}", w.name()), ("{name2}", w.name()), ("{place}", w.pick(PLACES)),
                            ("{adjective}", w.adjective()), ("{noun}", w.pick(nouns))):
            text = text.replace(slot, value)
        return text

    def ask(self, unknown):
        """(question, answer, kind, length of the answer before its value)."""
        if unknown or not self.known:
            drawn = self.draw()
            kind = "unknown"
            if not drawn:
                return None
        else:
            drawn = self.rng.choice(list(self.known))
            kind = drawn[0]
        relation = RELATIONS[drawn[0]]
        if self.rng.random() < 0.8:
            question = sentence(self.rng.choice(relation.questions), drawn[1])
        else:
            question = sentence(self.rng.choice(WRAPPED).format(self.rng.choice(relation.what)), drawn[1])
        if self.rng.random() < 0.06:
            question = question[0].lower() + question[1:]
        if self.rng.random() < 0.06:
            question = question[:-1]
        begin = sentence(relation.answer.split(" {v}")[0], drawn[1])
        if drawn in self.known:
            return question, sentence(relation.answer, drawn[1], self.known[drawn]), kind, len(begin)
        return question, begin + UNKNOWN, kind, len(begin)


# ---- Conversations


class Tokens:
    """Text to ids, words looked up once. Generated text is ASCII, which this split cuts as the published one."""

    SPLIT = re.compile(r"'(?:[stmd]|re|ve|ll)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+"
                       r"|\s+(?!\S)|\s+")

    def __init__(self, path):
        self.tokenizer = reference_tokenizer.Tokenizer(path)
        self.added = self.tokenizer.added
        self.cache = {}

    def encode(self, text):
        ids = []
        for piece in self.SPLIT.findall(text):
            known = self.cache.get(piece)
            if known is None:
                known = self.cache[piece] = self.tokenizer.merge(piece)
            ids += known
        return ids


VALUE_WEIGHT = 4


def conversation(rng, size, invent=0.04, filler=None, unknown=0.25):
    """Messages of about `size` tokens (within a tenth): facts and sentences between them, then or in between
    questions. A sentence has about nine tokens, a question with its answer 30."""
    filler = rng.choice([0.0, 0.2, 0.5]) if filler is None else filler
    facts = Facts(rng, invent, rng.choice([4, 8, 16, 40]))
    messages, used = [], 0

    def add(user, assistant, begin=0):
        nonlocal used
        messages.append({"role": "user", "content": user})
        messages.append({"role": "assistant", "content": assistant, "begin": begin})
        used += 12 + sum(len(text.split()) + sum(map(str.isdigit, text)) for text in (user, assistant)) * 1.15

    if rng.random() < 0.1:
        messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
        used += 10
    told = rng.uniform(0.3, 0.8) * size  # tokens of what is told
    if size < 200:
        told = rng.uniform(0.25, 0.5) * size
    block = rng.choice([1, 3, 10, 40, 1000])  # sentences per turn
    while used < size - 25:
        if rng.random() < 0.04:
            questions, answer = rng.choice(SMALL_TALK)
            add(rng.choice(questions), answer)
            continue
        if used < told:
            sentences, length = [], 0
            for _ in range(rng.randint(1, block)):
                text = facts.filler() if rng.random() < filler else facts.state()
                if text:
                    sentences.append(text)
                    length += len(text.split()) * 1.2 + 1
                if used + length > told:
                    break
            text = rng.choice([" "] * 6 + ["\n"]).join(sentences)
            if not text:
                told = 0
                continue
            if len(sentences) == 1 and rng.random() < 0.2:
                text = text[:-1]  # as people type
                add(text, NOTED)
            elif rng.random() < 0.3 and (asked := facts.ask(rng.random() < unknown)):
                add(text + " " + asked[0], asked[1], asked[3])
            else:
                add(text, NOTED)
            if rng.random() < 0.5:
                continue
        asked = facts.ask(rng.random() < unknown)
        if asked:
            add(asked[0], asked[1], asked[3])
    return messages


def tell(rng, size, invent):
    """(facts, texts of about `size` tokens that state them): sentences with facts and without, wherever."""
    facts = Facts(rng, invent, rng.choice([4, 8, 16, 40]))
    filler = rng.choice([0.2, 0.5, 0.8])
    block = rng.choice([1, 5, 1000, 1000])  # sentences per text
    blocks, length = [[]], 0
    while length < size or not facts.known:
        text = facts.filler() if facts.known and rng.random() < filler else facts.state()
        text = text or facts.filler()
        if len(blocks[-1]) >= block:
            blocks.append([])
            length += 18
        blocks[-1].append(text)
        length += (len(text.split()) + sum(map(str.isdigit, text))) * 1.1 + 1
    return facts, [" ".join(sentences) for sentences in blocks]


def ask(rng, facts, unknown):
    asked = facts.ask(rng.random() < unknown)
    while not asked:
        asked = facts.ask(False)
    return asked


def question(rng, size, invent=0.0, unknown=0.15):
    """A conversation of about `size` tokens whose last message is a question, the answer to it, and its kind."""
    facts, texts = tell(rng, size - 40, invent)
    asked, answer, kind, _ = ask(rng, facts, unknown)
    if rng.random() < 0.5:
        texts[-1] += " " + asked
    else:
        texts.append(asked)
    messages = [{"role": "user", "content": texts[0]}]
    for text in texts[1:]:
        messages += [{"role": "assistant", "content": NOTED}, {"role": "user", "content": text}]
    return {"messages": messages, "answer": answer, "kind": kind}


def examination(rng, size, count, invent=0.0, unknown=0.15):
    """[(what the user says, right answer, kind)]: about `size` tokens of what is told, then `count` questions."""
    facts, texts = tell(rng, size, invent)
    return [(text, NOTED, "told") for text in texts] + [ask(rng, facts, unknown)[:3] for _ in range(count)]


def render(tokens, messages, rng=None):
    """(ids, weight per id): the family's template. Of the model's own turns the template keeps the empty block of
    thoughts in the last one only; rng puts it into half of the others too, so that how an answer begins is learnt
    from them. Weight 1: what the model is to write; VALUE_WEIGHT: what it has to find for that."""
    added = tokens.added
    ids, weights = [], []
    start, end = added["<|im_start|>"], added["<|im_end|>"]
    newline, thoughtless = tokens.encode("\n"), [added["<think>"], *tokens.encode("\n\n"), added["</think>"],
                                                 *tokens.encode("\n\n")]
    for i, message in enumerate(messages):
        head = [start, *tokens.encode(message["role"]), *newline]
        if message["role"] != "assistant":
            body = tokens.encode(message["content"])
            ids += [*head, *body, end, *newline]
            weights += [0] * (len(head) + len(body) + 1 + len(newline))
            continue
        begin = message.get("begin", 0)  # words, and what follows is a piece of its own: encoded apart
        before, value = tokens.encode(message["content"][:begin]), tokens.encode(message["content"][begin:])
        weight = [1] * len(before) + [VALUE_WEIGHT if begin else 1] * len(value) + [1]
        if i == len(messages) - 1 or (rng is not None and rng.random() < 0.5):
            ids += [*head, *thoughtless, *before, *value, end, *newline]
            weights += [0] * len(head) + [1] * len(thoughtless) + weight + [0] * len(newline)
        else:
            ids += [*head, *before, *value, end, *newline]
            weights += [0] * (len(head) + 1) + weight[1:] + [0] * len(newline)
    return ids, weights


# ---- Files


def vocabulary():
    """Text with every word that conversations have, in the forms in which they have them."""
    rng = random.Random(1)
    text = []
    for _ in range(3000):
        messages = conversation(rng, 300, invent=0.0)
        text += ["\n" + message["role"] + "\n" + message["content"] for message in messages]
    words = [word for words in (ADJECTIVES, CONTAINERS, LOCKED, THINGS, PLACES, NAMES, CITIES, FOODS, JOBS, ANIMALS,
                                PETS, DAYS, EVENTS, OWNED) for word in words]
    text += [" " + word for word in words] * 3 + NAMES + ["\n\n"] * 1000
    return "\n".join(text)


PUBLISHED_ADDED = {
    **dict.fromkeys("<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> "
                    "<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> "
                    "<|image_pad|> <|video_pad|>".split(), True),
    **dict.fromkeys("<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> "
                    "<|file_sep|> <tool_response> </tool_response> <think> </think>".split(), False)}


def make_tokenizer(path):
    """Merges until every word is one token; digits, which the family's split cuts apart, stay one token each."""
    made = reference_tokenizer.train(vocabulary(), sys.maxsize, PUBLISHED_ADDED)
    Path(path).write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "tokenizer":
        make_tokenizer(sys.argv[2])
    elif len(sys.argv) == 5 and sys.argv[1] in ("conversations", "questions"):
        rng = random.Random(int(sys.argv[2]))
        for _ in range(int(sys.argv[3])):
            made = conversation(rng, int(sys.argv[4])) if sys.argv[1] == "conversations" else question(
                rng, int(sys.argv[4]))
            print(json.dumps(made))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
