"""Questions and their answers, written as the published files are, read back and told apart."""

import json

import pytest

from sightline.core.errors import DataError
from sightline.data.formats import open_dataset
from tests.data.published.files import document, lines, picture

QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
ASKED = [
    {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000},
    {"image_id": 262148, "question": "What are the people doing?", "question_id": 262148001},
    {"image_id": 393225, "question": "Is it red?", "question_id": 393225000},
]


def annotation(question, said, **changes):
    entry = {
        "question_type": "what", "answer_type": "other", "multiple_choice_answer": said[0],
        "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": i}
                    for i, a in enumerate(said, 1)],
        "image_id": question["image_id"], "question_id": question["question_id"],
    }  # fmt: skip
    return {**entry, **changes}


def vqa(folder, asked=ASKED, annotations=None, pictures=True):
    head = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco",
            "data_subtype": "val2014", "license": {}}  # fmt: skip
    document(folder / QUESTIONS, {**head, "questions": asked})
    if annotations is None:
        annotations = [annotation(q, ["down", "down", "at table"]) for q in asked]
    if annotations:
        document(folder / ANNOTATIONS, {**head, "annotations": annotations})
    for number in (262148, 393225) if pictures else ():
        picture(folder / f"val2014/COCO_val2014_{number:012d}.jpg")
    return folder


@pytest.mark.parametrize("name", ["", QUESTIONS, ANNOTATIONS])
def test_vqa_from_the_folder_or_from_either_file(tmp_path, name):
    data = open_dataset(vqa(tmp_path) / name)
    assert data.format == "vqa"
    assert [r.id for r in data] == ["262148000", "262148001", "393225000"]
    first = data[0]
    assert (first.question, first.answers) == ("Where is he looking?", ("down", "down", "at table"))
    assert first.image == tmp_path / "val2014/COCO_val2014_000000262148.jpg"
    assert first.extra == {"image_id": 262148, "question_type": "what", "answer_type": "other",
                           "multiple_choice_answer": "down"}  # fmt: skip
    assert first.split == "val"
    assert (data.report.questions, data.report.answers, data.report.missing) == (3, 9, ())


def test_a_test_set_has_questions_and_no_answers(tmp_path):
    data = open_dataset(vqa(tmp_path, annotations=[]))
    assert [r.answers for r in data] == [(), (), ()]
    assert data.report.notes == (
        f"3 question(s) of {QUESTIONS} have no answers: there are no annotations beside it",
    )


def test_what_the_files_do_not_share_is_counted(tmp_path):
    others = [annotation(ASKED[0], ["a"]), annotation({"image_id": 1, "question_id": 7}, ["b"])]
    assert open_dataset(vqa(tmp_path, annotations=others)).report.notes == (
        f"2 question(s) of {QUESTIONS} have no answers: not annotated",
        "1 annotation(s) of questions that are not there were left out",
    )


def test_missing_pictures_are_counted_once_a_question(tmp_path):
    vqa(tmp_path, pictures=False)
    picture(tmp_path / "val2014/COCO_val2014_000000262148.jpg")
    assert open_dataset(tmp_path).report.missing == ("393225000",)
    with pytest.raises(DataError, match=r"1 missing picture\(s\) \('393225000'\)"):
        open_dataset(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("name", "where"), [("7.png", "images"), ("000000000007.jpg", "train_images"), ("7.jpg", ".")]
)
def test_numbers_are_names_of_whatever_files_are_there(tmp_path, name, where):
    asked = [{"image_id": 7, "question": "?", "question_id": 1}]
    document(tmp_path / "train_questions.json", {"questions": asked})
    picture(tmp_path / where / name)
    data = open_dataset(tmp_path / "train_questions.json")
    assert data[0].image == tmp_path / where / name


DAMAGED = [
    ([{**ASKED[0], "question": 3}], None, "questions entry 1: 'question' must be text, got 3"),
    ([{**ASKED[0], "question_id": None}], None, "questions entry 1: 'question_id' must be a num"),
    ([ASKED[0], ASKED[0]], None, "questions entry 2: question_id 262148000 occurs twice"),
    ([3], [], "questions entry 1: a JSON object is expected, got int"),
    (ASKED, [annotation(ASKED[0], ["x"], image_id=5)], "image_id 5, but the question 262148000"),
    (ASKED, [annotation(ASKED[0], ["x"], answers=[3, True])], "'answers' must be text.*got bool"),
    (ASKED, [annotation(ASKED[0], ["x"], answers=[{}])], "'answers' must be text.*got NoneType"),
    (ASKED, [annotation(ASKED[0], ["x"], question_id=5)], "have no question in common"),
]


@pytest.mark.parametrize(("asked", "annotations", "message"), DAMAGED)
def test_damaged_pairs_name_file_and_entry(tmp_path, asked, annotations, message):
    if annotations is None:
        annotations = [annotation(ASKED[0], ["x"])]
    vqa(tmp_path, asked, annotations)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path / QUESTIONS, format="vqa")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_cut_off_file_and_files_that_do_not_belong_together(tmp_path):
    vqa(tmp_path)
    file = tmp_path / ANNOTATIONS
    file.write_text(file.read_text()[:-40])
    with pytest.raises(DataError, match=r"val2014_annotations.json, line 1, .*truncated"):
        open_dataset(tmp_path)
    vqa(tmp_path)
    file.rename(tmp_path / "v2_mscoco_test2014_annotations.json")
    with pytest.raises(DataError, match="annotations without their questions: put the file of"):
        open_dataset(tmp_path / "v2_mscoco_test2014_annotations.json")
    for name in (ANNOTATIONS, "v2-mscoco-val2014-annotations.json"):
        document(tmp_path / name, {"annotations": []})
    with pytest.raises(DataError, match="which annotations belong to it"):
        open_dataset(tmp_path / QUESTIONS)


def test_text_vqa(tmp_path):
    entry = {"question": "what is the brand?", "image_id": "0054c91397f2fe05", "question_id": 0,
             "image_classes": ["Belt"], "set_name": "train", "answers": ["nokia"] * 9 + ["toshiba"],
             "question_tokens": ["what"], "flickr_original_url": "https://x.org/a.jpg"}  # fmt: skip
    document(tmp_path / "TextVQA_0.5.1_train.json", {"dataset_type": "train", "data": [entry]})
    picture(tmp_path / "train_images/0054c91397f2fe05.jpg")
    data = open_dataset(tmp_path)
    assert (data.format, data.splits) == ("textvqa", ("train",))
    assert data[0].answers == ("nokia",) * 9 + ("toshiba",)
    assert data[0].extra == {"image_id": "0054c91397f2fe05", "image_classes": ["Belt"]}
    assert data.report.missing == ()


def test_doc_vqa(tmp_path):
    entry = {"questionId": 337, "question": "what is the date?", "image": "documents/xnbl_1.png",
             "docId": 279, "answers": ["1/8/93", "1/8/93"], "data_split": "val"}  # fmt: skip
    document(tmp_path / "val_v1.0.json", {"dataset_name": "docvqa", "data": [entry]})
    picture(tmp_path / "documents/xnbl_1.png")
    data = open_dataset(tmp_path)
    assert (data.format, data[0].id, data[0].split) == ("textvqa", "337", "val")
    assert data[0].image == tmp_path / "documents/xnbl_1.png"
    assert data[0].answers == ("1/8/93", "1/8/93")


def test_chart_qa(tmp_path):
    rows = [
        {"imgname": "41699051005347.png", "query": f"How many {n}?", "label": "14"} for n in "ab"
    ]
    document(tmp_path / "train_human.json", rows)
    picture(tmp_path / "png/41699051005347.png")
    data = open_dataset(tmp_path)
    assert (data.format, data.report.missing) == ("chartqa", ())
    assert [(r.id, r.question, r.answers) for r in data] == [
        ("train_human/1", "How many a?", ("14",)), ("train_human/2", "How many b?", ("14",)),
    ]  # fmt: skip


def test_the_two_parts_of_chart_qa_are_one_split(tmp_path):
    rows = [{"imgname": "1.png", "query": "How many?", "label": "14"}]
    for part in ("human", "augmented"):
        document(tmp_path / f"test_{part}.json", rows)
    picture(tmp_path / "png/1.png")
    data = open_dataset(tmp_path)
    assert {(r.id, r.split) for r in data} == {
        ("test_human/1", "test"), ("test_augmented/1", "test"),
    }  # fmt: skip
    document(tmp_path / "test_human_2.json", rows)
    with pytest.raises(DataError, match="3 lists of the format chartqa: open one of"):
        open_dataset(tmp_path)


def test_gqa(tmp_path):
    entry = {"semantic": [], "entailed": [], "imageId": "2405722", "question": "What is this?",
             "answer": "pipe", "fullAnswer": "This is a pipe.", "isBalanced": True}  # fmt: skip
    document(tmp_path / "testdev_balanced_questions.json", {"02930152": entry})
    picture(tmp_path / "images/2405722.jpg")
    data = open_dataset(tmp_path)
    assert (data.format, data[0].id, data[0].answers) == ("gqa", "02930152", ("pipe",))
    assert data[0].extra == {"imageId": "2405722", "fullAnswer": "This is a pipe.",
                             "isBalanced": True}  # fmt: skip
    assert data.report.missing == ()


def test_pope(tmp_path):
    rows = [{"question_id": i, "image": "COCO_val2014_000000310196.jpg", "label": answer,
             "text": "Is there a snowboard in the image?"}
            for i, answer in enumerate(("yes", "No"), 1)]  # fmt: skip
    lines(tmp_path / "coco_pope_random.json", *rows)
    picture(tmp_path / "val2014/COCO_val2014_000000310196.jpg")
    data = open_dataset(tmp_path)
    assert (data.format, [r.id for r in data]) == ("pope", ["random/1", "random/2"])
    assert data[0].extra == {"category": "random"}
    assert [r.answers for r in data] == [("yes",), ("no",)]
    assert data[0].choices == ("yes", "no")
    assert data[0].label is None


def test_the_three_files_of_pope_are_one_set_and_tell_their_kind(tmp_path):
    row = {"question_id": 1, "image": "a.png", "label": "yes", "text": "Is there a cat?"}
    for kind in ("random", "popular", "adversarial"):
        lines(tmp_path / f"coco_pope_{kind}.json", row)
    picture(tmp_path / "val2014/a.png")
    data = open_dataset(tmp_path)
    assert [(r.id, r.extra["category"]) for r in data] == [
        ("adversarial/1", "adversarial"), ("popular/1", "popular"), ("random/1", "random"),
    ]  # fmt: skip
    (tmp_path / "coco_pope_random.json").rename(tmp_path / "asked.json")
    assert (open_dataset(tmp_path / "asked.json")[0].id, data.report.missing) == ("1", ())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "textvqa",
            {"data": [{"question": "?", "image_id": [], "question_id": 1}]},
            "'image_id' mu",
        ),
        ("textvqa", {"data": {}}, "the list 'data' is expected"),
        ("chartqa", {"imgname": 1}, "a JSON array of questions is expected"),
        ("chartqa", [{"imgname": 1}], "entry 1: 'imgname' must be text, got 1"),
        ("gqa", [], "a JSON object is expected, got list"),
        ("gqa", {"1": {"imageId": "1", "question": ""}}, "question '1': 'question' must be text"),
        (
            "pope",
            {"text": "?", "image": "a.png", "label": "maybe"},
            "must be yes or no, got 'maybe'",
        ),
        ("vqa", {"questions": 3}, "the list 'questions' is expected"),
    ],
)
def test_mistyped_files_name_the_place(tmp_path, name, value, message):
    file = document(tmp_path / "d.json", value)
    with pytest.raises(DataError, match=message):
        open_dataset(file, format=name)


def test_questions_in_plain_tables_and_json(tmp_path):
    picture(tmp_path / "a.png")
    row = {"image": "a.png", "answers": [{"answer": "x"}, {"answer": "x"}], "answerable": 1}
    document(tmp_path / "val.json", [{**row, "question": q} for q in ("one?", "two?")])
    data = open_dataset(tmp_path / "val.json")  # as VizWiz writes it
    assert [(r.id, r.question, r.answers) for r in data] == [
        ("a.png", "one?", ("x", "x")), ("a.png#2", "two?", ("x", "x")),
    ]  # fmt: skip
    (tmp_path / "q.csv").write_text("image,question,answer\na.png,how many?,3\n")
    asked = open_dataset(tmp_path / "q.csv")[0]
    assert (asked.question, asked.answers, asked.captions) == ("how many?", ("3",), ())
    lines(tmp_path / "c.jsonl", {"image": "a.png", "question": "?", "options": ["a", "b"]})
    assert open_dataset(tmp_path / "c.jsonl")[0].choices == ("a", "b")
    lines(tmp_path / "c.jsonl", {"image": "a.png", "question": ["?"]})
    with pytest.raises(DataError, match="line 1: 'question' must be text, got list"):
        open_dataset(tmp_path / "c.jsonl")


def test_an_answer_without_a_question_is_left_alone(tmp_path):
    picture(tmp_path / "a.png")
    lines(tmp_path / "c.jsonl", {"image": "a.png", "answer": {"deep": 1}, "regions": "north"})
    assert open_dataset(tmp_path / "c.jsonl")[0].extra == {
        "answer": {"deep": 1},
        "regions": "north",
    }


def test_two_sets_in_one_folder_are_told_apart(tmp_path):
    vqa(tmp_path)
    lines(tmp_path / "coco_pope_random.json",
          {"question_id": 1, "image": "a.jpg", "text": "?", "label": "yes"})  # fmt: skip
    with pytest.raises(DataError, match=r"2 ways: pope \(.*\); vqa \(.*pope or vqa$"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, format="vqa")) == 3
    picture(tmp_path / "val2014/a.jpg")
    report = open_dataset(tmp_path, format="pope").report.to_json()
    assert json.loads(json.dumps(report))["questions"] == 1
