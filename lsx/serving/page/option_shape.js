// What control a JSON schema asks for.

const HIDDEN = new Set(["array", "object"]);

/** The branches of a schema: what anyOf, oneOf, allOf of one, and references lead to. */
function branchesOf(schema, definitions) {
    if (schema.$ref) return branchesOf(definitions[schema.$ref.split("/").at(-1)] ?? {}, definitions);
    const inner = schema.anyOf ?? schema.oneOf ?? (schema.allOf?.length === 1 ? schema.allOf : null);
    if (inner) return inner.flatMap((branch) => branchesOf(branch, definitions));
    if (Array.isArray(schema.type)) return schema.type.map((type) => ({ ...schema, type }));
    return [schema];
}

const fixedOf = (branch) => branch.enum ?? ("const" in branch ? [branch.const] : null);

/**
 * The control for an option: {kind, nullable, fallback, choices, minimum, maximum, whole, numeric}.
 *
 * kind: "select" has choices; "checkbox"; "number" is whole or not; "text" may have choices to suggest, and is numeric
 * where numbers are sent as such. Null for lists and objects, which a form of single values cannot take.
 */
export function shapeOf(schema, definitions = {}) {
    const every = branchesOf(schema, definitions);
    const branches = every.filter((branch) => branch.type !== "null" && branch.const !== null);
    const choices = branches.flatMap((branch) => fixedOf(branch) ?? []).filter((value) => value !== null);
    const open = branches.filter((branch) => fixedOf(branch) === null);
    const shape = { nullable: branches.length < every.length, fallback: schema.default ?? null, choices };
    if (open.length === 0) return choices.length > 0 ? { ...shape, kind: "select" } : null;
    const [only] = open;
    if (open.every((branch) => HIDDEN.has(branch.type))) return null;
    if (only.type === "boolean") {
        return shape.nullable ? { ...shape, kind: "select", choices: [true, false] } : { ...shape, kind: "checkbox" };
    }
    const isNumber = (branch) => branch.type === "integer" || branch.type === "number";
    if (open.length === 1 && choices.length === 0 && isNumber(only)) {
        const { minimum = only.exclusiveMinimum, maximum = only.exclusiveMaximum } = only;
        return { ...shape, kind: "number", minimum, maximum, whole: only.type === "integer" };
    }
    return { ...shape, kind: "text", numeric: open.some(isNumber) };
}
