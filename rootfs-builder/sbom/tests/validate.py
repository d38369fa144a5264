"""Validates documents with the libraries of the projects that define them.

Arguments are pairs of a kind and a file. For each pair one line is written: "ok", or what is wrong.
"""

import json
import sys


def spdx(path):
    from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
    from spdx_tools.spdx.parser.error import SPDXParsingError
    from spdx_tools.spdx.parser.json import json_parser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    try:
        document = json_parser.parse_from_file(path)
    except SPDXParsingError as error:
        return error.get_messages()
    errors = [message.validation_message for message in validate_full_spdx_document(document, "SPDX-2.3")]
    # The parser passes over what it does not know. What it understood must be all there was.
    with open(path, encoding="utf-8") as file:
        written = json.load(file)
    understood = DocumentConverter().convert(document)
    for key in sorted(written.keys() | understood.keys()):
        ours, theirs = items(written.get(key)), items(understood.get(key))
        errors += [f"{key}: {item} is not understood as it is written" for item in sorted(ours - theirs)]
        errors += [f"{key}: {item} is understood and not written" for item in sorted(theirs - ours)]
    return errors


def items(value):
    """What a field holds, without the order of a list, which means nothing in SPDX.

    The schema of 2.3 knows PACKAGE-MANAGER, the one of 2.2 the other spelling, which is what the library writes.
    """
    texts = [json.dumps(item, sort_keys=True) for item in (value if isinstance(value, list) else [value])]
    return {text.replace('"PACKAGE_MANAGER"', '"PACKAGE-MANAGER"') for text in texts}


def cyclonedx(path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    with open(path, encoding="utf-8") as file:
        errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(file.read(), all_errors=True)
    return [repr(error) for error in errors or []]


def provenance(path):
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement

    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    try:
        # Both refuse fields that the message has not.
        statement = json_format.ParseDict(document, statement_pb2.Statement())
        predicate = json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
        Statement.copy_from_pb(statement).validate()
        for resource in predicate.build_definition.resolved_dependencies:
            ResourceDescriptor.copy_from_pb(resource).validate()
    except (json_format.ParseError, ValueError) as error:
        return [str(error)]
    required = {
        "predicateType": statement.predicate_type == "https://slsa.dev/provenance/v1",
        "buildType": predicate.build_definition.build_type,
        "externalParameters": predicate.build_definition.external_parameters,
        "builder.id": predicate.run_details.builder.id,
    }
    return [f"no {name}" for name, value in required.items() if not value]


for kind, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    errors = {"spdx": spdx, "cyclonedx": cyclonedx, "provenance": provenance}[kind](path)
    print("ok" if not errors else "; ".join(errors).replace("\n", " "))
