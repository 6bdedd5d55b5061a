# Rules that no condition on one result can state: results compared with each other, and requirements with each other.
#
# Asked by mlseal once every rule of the policy holds, with the document that `mlseal policy input` prints. The answer
# is true, false, or an object with "allow" and "reasons"; undefined is never a permission.
package mlseal.gate

decision := {"allow": count(reasons) == 0, "reasons": reasons}

# A document of another shape is not judged by rules that were written for this one.
reasons contains "the input document is not of version 0.1" if {
	not input.document == "https://mlseal.dev/opa-input/v0.1"
}

# A figure from before the training is about another model that had the same bytes by accident, or about nothing.
reasons contains "fairness was measured before the model was trained" if {
	some measured in input.requirements.fairness.facts
	some trained in input.requirements["slsa-provenance"].facts
	time.parse_rfc3339_ns(measured.signedOn) < time.parse_rfc3339_ns(trained.signedOn)
}

# Each result may hold by itself while the gap grows from one to the next.
reasons contains sprintf("the gap grew from %v to %v between two results", [before, after]) if {
	some earlier in input.requirements.fairness.facts
	some later in input.requirements.fairness.facts
	time.parse_rfc3339_ns(earlier.signedOn) < time.parse_rfc3339_ns(later.signedOn)
	before := gap(earlier)
	after := gap(later)
	after > before + 0.02
}

# Whoever trained does not also measure: by person, whatever the roles are called.
reasons contains "one identity trained the model and measured it" if {
	some measured in input.requirements.fairness.facts
	some trained in input.requirements["slsa-provenance"].facts
	measured.signer == trained.signer
}

gap(fact) := high if {
	some metric in fact.predicate.metrics
	metric.name == "equalizedOddsDifference"
	high := metric.ciHigh
}
