"""Checks every document of a Kubernetes manifest by the schemas in a folder: kubernetes.py MANIFEST FOLDER"""

import json
import pathlib
import sys

import jsonschema
import yaml

manifest, folder = sys.argv[1], pathlib.Path(sys.argv[2])
definitions = json.loads((folder / "_definitions.json").read_text())
faults = 0
with open(manifest) as file:
    for document in yaml.safe_load_all(file):
        kind = f"{document['kind']}-{document['apiVersion'].replace('/', '-')}"
        schema = json.loads((folder / f"{kind.lower()}.json").read_text())
        resolver = jsonschema.RefResolver(schema["$id"], schema, {definitions["$id"]: definitions})
        for error in jsonschema.Draft202012Validator(schema, resolver=resolver).iter_errors(document):
            faults += 1
            print(f"{kind}: {error.json_path}: {error.message}", file=sys.stderr)
sys.exit(1 if faults else 0)
