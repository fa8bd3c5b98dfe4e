"""Which passes there are and in which order they run. Must not know what the passes before and after them are part of."""

from __future__ import annotations

from collections.abc import Callable

from vlacompile.compiler.passes.batch_over_loop import BatchOverLoop
from vlacompile.compiler.passes.collapse_linear_chains import CollapseLinearChains
from vlacompile.compiler.passes.decompose_untranslated import DecomposeUntranslated
from vlacompile.compiler.passes.drop_identities import DropIdentities
from vlacompile.compiler.passes.fill_empty import FillEmpty
from vlacompile.compiler.passes.fold_batch_norms import FoldBatchNorms
from vlacompile.compiler.passes.fold_constants import FoldConstants
from vlacompile.compiler.passes.four_dimensional_attention import FourDimensionalAttention
from vlacompile.compiler.passes.fuse_loop import FuseLoop
from vlacompile.compiler.passes.guard_empty_rows import GuardEmptyRows
from vlacompile.compiler.passes.merge_common_subexpressions import MergeCommonSubexpressions
from vlacompile.compiler.passes.narrow_linears import NarrowLinears
from vlacompile.compiler.passes.own_outputs import OwnOutputs
from vlacompile.compiler.passes.read_parts_of_concat import ReadPartsOfConcat
from vlacompile.compiler.passes.split_batched import SplitBatched
from vlacompile.compiler.passes.split_linear_over_concat import SplitLinearOverConcat
from vlacompile.compiler.passes.split_linear_over_features import SplitLinearOverFeatures
from vlacompile.compiler.passes.split_tokens import SplitTokens
from vlacompile.compiler.passes.use_engine_types import UseEngineTypes
from vlacompile.compiler.passes.write_complex_as_pairs import WriteComplexAsPairs
from vlacompile.compiler.passes.write_recurrences_out import WriteRecurrencesOut
from vlacompile.compiler.passes.write_scatters_as_concat import WriteScattersAsConcat


def graph_passes(translated: Callable, decompositions: Callable) -> tuple:
    """What every program goes through before loops are looked for. translated, decompositions: what the format that stages
    are emitted in has, as DecomposeUntranslated takes them."""
    return (
        WriteComplexAsPairs(),
        WriteRecurrencesOut(),
        DecomposeUntranslated(translated, decompositions),
        UseEngineTypes(),
        DropIdentities(),
        FillEmpty(),
        WriteScattersAsConcat(),
        ReadPartsOfConcat(),
        FoldBatchNorms(),
        MergeCommonSubexpressions(),
        SplitTokens(),
        SplitLinearOverConcat(),
        SplitLinearOverFeatures(),
        NarrowLinears(),
        CollapseLinearChains(),
        SplitBatched(),
        GuardEmptyRows(),
        FourDimensionalAttention(),
        MergeCommonSubexpressions(),
    )


LOOP_PASSES = (  # where loops were found
    BatchOverLoop(),
    MergeCommonSubexpressions(),
)
FUSED_PASSES = (  # where all iterations of a loop run in one engine
    FuseLoop(),
    MergeCommonSubexpressions(),
)
LAST_PASSES = (  # before the graph is divided into stages
    FoldConstants(),
    OwnOutputs(),
)
