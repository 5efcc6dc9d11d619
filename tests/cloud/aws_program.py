"""The program `aws` of the fake cloud's machines, which have the rights of their role.

Operations and their options are those of AWS's own models; of `aws s3`, cp and rm.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import jmespath
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

GLOBAL = {"--query", "--output", "--region"}


def main(words: list[str]) -> int:
    try:
        if words[0] == "s3":
            store(words[1], words[2:])
        else:
            operate(*words[:2], words[2:])
    except (ClientError, BotoCoreError) as error:
        sys.stderr.write(f"{error}\n")
        return 254
    except (KeyError, IndexError, ValueError) as error:
        sys.stderr.write(f"aws: {error!r} in {words}\n")
        return 252
    return 0


def operate(service: str, operation: str, words: list[str]) -> None:
    """Call an operation of a service, and say what it answers."""
    options = dict(_options(words))
    settings = {name: options.pop(name)[0] for name in GLOBAL & set(options)}
    client = boto3.client(service, region_name=settings.get("--region"))
    name = client.meta.method_to_api_mapping[operation.replace("-", "_")]
    shape = client.meta.service_model.operation_model(name).input_shape
    members = {f"--{xform_name(each, '-')}": each for each in shape.members}
    asked = {members[key]: _value(shape.members[members[key]], options[key]) for key in options}
    answer = getattr(client, operation.replace("-", "_"))(**asked)
    answer.pop("ResponseMetadata")
    if query := settings.get("--query"):
        answer = jmespath.search(query, answer)
    if answer:
        text = isinstance(answer, str) and settings.get("--output") == "text"
        sys.stdout.write(f"{answer if text else json.dumps(answer, default=str)}\n")


def _options(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option with the words behind it."""
    begins = [place for place, word in enumerate(words) if word.startswith("--")]
    if words and begins[:1] != [0]:
        raise ValueError(words[0])
    for place, after in zip(begins, [*begins[1:], len(words)], strict=True):
        yield words[place], words[place + 1 : after]


def _value(shape: Any, words: list[str]) -> Any:
    """What words stand for, where this is to come."""
    if shape.type_name == "list":
        return words
    if shape.type_name == "boolean":
        if words:
            raise ValueError(f"{words} behind a switch")
        return True
    (word,) = words
    return int(word) if shape.type_name in ("integer", "long") else word


# --- files


def store(operation: str, words: list[str]) -> None:
    """`aws s3 cp [--recursive] FROM TO`, where - stands for the output, and `aws s3 rm WHAT`."""
    region = words.pop(words.index("--region") + 1) if "--region" in words else None
    switches = {word for word in words if word.startswith("--")}
    if strange := switches - {"--recursive", "--only-show-errors", "--region"}:
        raise ValueError(strange)
    places = [word for word in words if word not in switches]
    s3 = boto3.client("s3", region_name=region)
    if operation == "rm":
        (what,) = places
        s3.delete_object(**_place(what))
        return
    if operation != "cp":
        raise ValueError(operation)
    source, target = places
    if "--recursive" in switches:
        for file in Path(source).rglob("*"):
            if file.is_file():
                place = _place(f"{target.rstrip('/')}/{file.relative_to(source)}")
                s3.put_object(**place, Body=file.read_bytes())
    elif source.startswith("s3://"):
        data = s3.get_object(**_place(source))["Body"].read()
        if target == "-":
            sys.stdout.buffer.write(data)
        else:
            Path(target).write_bytes(data)
    else:
        s3.put_object(**_place(target), Body=Path(source).read_bytes())


def _place(url: str) -> dict[str, str]:
    if not url.startswith("s3://"):
        raise ValueError(url)
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
