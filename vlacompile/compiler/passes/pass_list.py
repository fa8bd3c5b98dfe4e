"""Which passes there are and in which order they run. Must not know what else a program goes through between them."""

from __future__ import annotations

from collections.abc import Callable

from vlacompile.compiler.passes.batch_over_loop import BatchOverLoop
from vlacompile.compiler.passes.canonicalise_attention import CanonicaliseAttention
from vlacompile.compiler.passes.collapse_linear_chains import CollapseLinearChains
from vlacompile.compiler.passes.decompose_untranslated import DecomposeUntranslated
from vlacompile.compiler.passes.drop_identities import DropIdentities
from vlacompile.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from vlacompile.compiler.passes.fold_batch_norms import FoldBatchNorms
from vlacompile.compiler.passes.fold_constants import FoldConstants
from vlacompile.compiler.passes.fold_slices_into_linears import FoldSlicesIntoLinears
from vlacompile.compiler.passes.fold_slices_of_concat import FoldSlicesOfConcat
from vlacompile.compiler.passes.graph_pass import GraphPass
from vlacompile.compiler.passes.guard_empty_rows import GuardEmptyRows
from vlacompile.compiler.passes.initialise_empty import InitialiseEmpty
from vlacompile.compiler.passes.insert_output_copies import InsertOutputCopies
from vlacompile.compiler.passes.legalise_types import LegaliseTypes
from vlacompile.compiler.passes.lower_complex import LowerComplex
from vlacompile.compiler.passes.lower_slice_scatters import LowerSliceScatters
from vlacompile.compiler.passes.split_batch_by_rate import SplitBatchByRate
from vlacompile.compiler.passes.split_linear_over_concat import SplitLinearOverConcat
from vlacompile.compiler.passes.split_linear_over_features import SplitLinearOverFeatures
from vlacompile.compiler.passes.split_tokens_by_rate import SplitTokensByRate
from vlacompile.compiler.passes.unroll_loop import UnrollLoop
from vlacompile.compiler.passes.unroll_recurrences import UnrollRecurrences


def graph_passes(translated: Callable, decompositions: Callable) -> tuple[GraphPass, ...]:
    """What every program goes through before loops are looked for. translated, decompositions: which ops the format
    that stages are emitted in has, as DecomposeUntranslated takes them."""
    return (
        LowerComplex(),
        UnrollRecurrences(),
        DecomposeUntranslated(translated, decompositions),
        LegaliseTypes(),
        DropIdentities(),
        InitialiseEmpty(),
        LowerSliceScatters(),
        FoldSlicesOfConcat(),
        FoldBatchNorms(),
        EliminateCommonSubexpressions(),
        SplitTokensByRate(),
        SplitLinearOverConcat(),
        SplitLinearOverFeatures(),
        FoldSlicesIntoLinears(),
        CollapseLinearChains(),
        SplitBatchByRate(),
        GuardEmptyRows(),
        CanonicaliseAttention(),
        EliminateCommonSubexpressions(),
    )


LOOP_PASSES: tuple[GraphPass, ...] = (  # where loops were found
    BatchOverLoop(),
    EliminateCommonSubexpressions(),
)
FUSED_PASSES: tuple[GraphPass, ...] = (  # where all iterations of a loop run in one engine
    UnrollLoop(),
    EliminateCommonSubexpressions(),
)
LAST_PASSES: tuple[GraphPass, ...] = (  # before the graph is divided into stages
    FoldConstants(),
    InsertOutputCopies(),
)
