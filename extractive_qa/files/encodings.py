"""What a file is that is no UTF-8 text: the encoding that fits, or the kind of file that its first bytes show.

charset-normalizer reads 6 of the 14 short texts of tests/files/test_reading.py in a wrong encoding, so this is our own.
"""

import codecs
import re

TYPE_THE_TEXT = "Its text has to be in a text file: copy it from there, and save it as *.txt."
A_TEXT_IN_IT = "Unpack it, and give one of its files."
# what files begin with that are no text, and what to do
KINDS = {
    b"\x89PNG": ("is a picture (PNG)", TYPE_THE_TEXT),
    b"\xff\xd8\xff": ("is a picture (JPEG)", TYPE_THE_TEXT),
    b"GIF8": ("is a picture (GIF)", TYPE_THE_TEXT),
    b"%PDF": ("is a PDF", TYPE_THE_TEXT),
    b"{\\rtf": ("is formatted text (RTF)", "Save it as plain text (*.txt, UTF-8)."),
    b"\xd0\xcf\x11\xe0": ("is an older Word or Excel file", "Save it as plain text (*.txt), a sheet as CSV UTF-8."),
    b"PAR1": ("is a Parquet file", "If it holds questions, call it *.parquet."),
    b"SQLite format 3\0": ("is an SQLite database", "Export its rows as CSV UTF-8."),
    b"PK\x03\x04": ("is a ZIP archive", A_TEXT_IN_IT),
    b"\x1f\x8b": ("is compressed (gzip)", A_TEXT_IN_IT),
    b"7z\xbc\xaf": ("is a 7-Zip archive", A_TEXT_IN_IT),
    b"Rar!\x1a": ("is a RAR archive", A_TEXT_IN_IT),
}
# of ZIP archives, by the name of a folder in them
OFFICE = {
    b"word/": ("is a Word document", "Save it as plain text (*.txt, UTF-8)."),
    b"xl/": ("is an Excel workbook", "Save the sheet as CSV UTF-8."),
    b"ppt/": ("is a PowerPoint file", TYPE_THE_TEXT),
}
SAMPLE = 100_000  # bytes that are looked at
LEAST = 0.25  # share of the characters that are not ASCII, for an encoding to fit; the right one has 0.35 and more
# The most frequent characters of what an encoding is used for: in a text that is read in another one they are rare.
CHINESE = (
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而"
    "能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长知民样现分将外但身些与高"
    "意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业最间新什打便位因重被走电四第门相次东政"
    "海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼体别处总才场师书比住员九笑性通目华报立马命张活"
    "难神数件安表原车白应路期叫死常提感金何更反合放做系计或司利受光王果亲界及今京务制解各任至清物台象记边共风战干接它"
    "许八特觉望直服毛林题建南度统色字请交爱让认算论百吃义科怎元社术结六功指思非流每青管夫连远资队跟带花快条院变联权往"
    "展该领传近留红治决周保达办运武半候七必城父强步完革深区即求品士转量空甚众技轻程告江语英基派满式李息写呢识极令黄德"
    "收脸钱党倒未持取设始版双历越史商千片容研像找友孩站广改议形委早房音火际则首单据导影失拿网香似斯专石若兵弟谁校读志"
    "飞观争究包组造落视济喜离虽坏选。，、？！；："
)
CHINESE_TRADITIONAL = (
    "的一是不了人我在有他這中大來上國個到說們為子和你地出道也時年得就那要下以生會自著去之過家學對可她裡後小麼心多天而"
    "能好都然沒日於起還發成事只作當想看文無開手十用主行方又如前所本見經頭面公同三已老從動兩長知民樣現分將外但身些與高"
    "意進把法此實回二理美點月明其種聲全工己話兒者向情部正名定女問力機給等幾很業最間新什打便位因重被走電四第門相次東政"
    "海口使教西再平真聽世氣信北少關並內加化由卻代軍產入先山五太水萬市眼體別處總才場師書比住員九笑性通目華報立馬命張活"
    "難神數件安表原車白應路期叫死常提感金何更反合放做系計或司利受光王果親界及今京務制解各任至清物台象記邊共風戰幹接它"
    "許八特覺望直服毛林題建南度統色字請交愛讓認算論百吃義科怎元社術結六功指思非流每青管夫連遠資隊跟帶花快條院變聯權往"
    "展該領傳近留紅治決周保達辦運武半候七必城父強步完革深區即求品士轉量空甚眾技輕程告江語英基派滿式李息寫呢識極令黃德"
    "收臉錢黨倒未持取設始版雙歷越史商千片容研像找友孩站廣改議形委早房音火際則首單據導影失拿網香似斯專石若兵弟誰校讀志"
    "飛觀爭究包組造落視濟喜離雖壞選。，、？！；："
)
KANA = "".join(map(chr, [*range(0x3041, 0x3094), *range(0x30A1, 0x30F7)])) + "ー。、「」"
KOREAN = (
    "이다는의에을를가은로하고기지한사도어아대리자나인시서들으있해과와게그일수라만정보제스전주니여구장부성조신상오안원"
    "요면것적우위동유공트마비미생선소세연당국드모러되았었했된될할중경개년월"
)
RUSSIAN = re.compile("[А-Яа-яЁё][а-яё]{2,}")  # in rows; one that stands alone among ASCII is of a Western language
# such a letter or sign stands alone among ASCII, or two do
WESTERN = re.compile(
    "(?<![^\0-\x7f])[àáâãäåæçèéêëìíîïñòóôõöøœšžùúûüýÿßÀÁÂÄÅÆÇÈÉÊËÍÎÑÓÔÖØŒŠÙÚÛÜ‘’“”«»–—…•€£§°©®\xa0]{1,2}(?![^\0-\x7f])"
)
FREQUENT = {
    "gb18030": CHINESE, "big5": CHINESE_TRADITIONAL, "shift_jis": KANA, "euc_jp": KANA, "euc_kr": KOREAN,
    "cp1251": RUSSIAN, "cp1252": WESTERN,
    "utf-16-le": CHINESE, "utf-16-be": CHINESE,
}  # fmt: skip
PLAIN = {*b"\0\t\n\f\r", *range(32, 127)}  # bytes
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def kind_of(content: bytes) -> tuple[str, str] | None:
    """What a file is that begins so and is no text, in words, and what its user can do; None for all others."""
    kind = next((KINDS[beginning] for beginning in KINDS if content.startswith(beginning)), None)
    if kind == KINDS[b"PK\x03\x04"]:
        kind = next((OFFICE[folder] for folder in OFFICE if folder in content), kind)
    return kind


def guess_encoding(content: bytes) -> str | None:
    """The encoding that a text seems to be in, as Python calls it: UTF-8 where it can be read as that, else one in
    which it can be read and those characters are frequent that are so in the languages it is used for. None where none
    fits, as for UTF-8 with a damaged byte and for what is no text. The first 100,000 bytes are looked at."""
    content = content[:SAMPLE]
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return encoding
    zeros = content[::2].count(0), content[1::2].count(0)
    if sum(zeros) > len(content) // 20:  # UTF-16 without a mark: that of ASCII, line ends at least, is on one side
        encoding = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        text = decode(content, encoding)
        # some zeros in a plain text are not half of it, nor do pairs of its letters make frequent characters
        is_plain = sum(zeros) < len(content) // 4 and PLAIN.issuperset(content)
        if "\0" in text or (is_plain and share_of_frequent(text, CHINESE) < LEAST):
            return None
        return encoding if sum(map(str.isprintable, text)) > 0.8 * len(text) > 0 else None
    if decode(content, "utf-8"):
        return "utf-8"
    scores = {encoding: share_of_frequent(decode(content, encoding), some) for encoding, some in FREQUENT.items()}
    best = max(scores, key=scores.get)
    return best if scores[best] >= LEAST else None


def decode(content: bytes, encoding: str) -> str:
    """The text, but for a character that is cut at the end of the sample; "" where it is not in this encoding."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(content, final=len(content) < SAMPLE)
    except UnicodeDecodeError:
        return ""


def share_of_frequent(text: str, frequent: str | re.Pattern) -> float:
    """Which share, 0 to 1, of the characters that are not ASCII is among the `frequent` ones."""
    others = [char for char in text if char > "\x7f"]
    if isinstance(frequent, re.Pattern):
        count = sum(map(len, frequent.findall(text)))
    else:
        count = sum(map(set(frequent).__contains__, others))
    return count / max(1, len(others))
