"""Activations that outgrew the range they were observed in: a value that is clipped passes no gradient either."""

from collections.abc import Mapping

from qat.inject.handle import Handle

#: Share of an activation's values beyond its observed range from which on it is worth a remedy: an average of ranges
#: leaves out a few values of every batch, a range that was frozen too early leaves out ever more. Learned step sizes
#: are not judged: what they clip, they clip for the loss.
LARGEST_CLIPPED_SHARE = 0.05


def saturated(handle: Handle, layers: Mapping[str, Mapping]) -> list[str]:
    """One sentence with the remedy for each activation of which more than `LARGEST_CLIPPED_SHARE` is clipped.

    layers: quantizer name -> what was measured of it, as the history keeps it.
    """
    sentences = []
    for name, site in handle.plan.sites.items():
        share = layers.get(name, {}).get("clip_share", 0.0)
        if site.role == "activation" and not site.spec.learned and share > LARGEST_CLIPPED_SHARE:
            remedy = "freeze observers later (freeze_observers=0.8)"
            if site.spec.observer_for(site.role) != "minmax":
                remedy += " or observe its extremes (QuantSpec(observer='minmax'))"
            sentences.append(f"{share:.0%} of the values of {name} lie beyond its range and are clipped; {remedy}.")
    return sentences
