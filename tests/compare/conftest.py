"""What several tests of the comparison share."""

from tests.compare.cases import no_figures as no_figures
