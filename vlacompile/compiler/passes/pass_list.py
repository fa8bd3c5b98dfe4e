"""Which passes there are and in which order they run. Must not know what else a program goes through between them."""

from __future__ import annotations

from collections.abc import Callable

from vlacompile.compiler.passes.batch_over_loop import BatchOverLoop
from vlacompile.compiler.passes.canonicalise_attention import CanonicaliseAttention
from vlacompile.compiler.passes.collapse_linear_chains import CollapseLinearChains
from vlacompile.compiler.passes.decompose_integers import DecomposeIntegers
from vlacompile.compiler.passes.decompose_untranslated import DecomposeUntranslated
from vlacompile.compiler.passes.drop_identities import DropIdentities
from vlacompile.compiler.passes.drop_open_masks import DropOpenMasks
from vlacompile.compiler.passes.drop_unread_rows import DropUnreadRows
from vlacompile.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from vlacompile.compiler.passes.fold_batch_norms import FoldBatchNorms
from vlacompile.compiler.passes.fold_constants import FoldConstants
from vlacompile.compiler.passes.fold_picks_into_tables import FoldPicksIntoTables
from vlacompile.compiler.passes.fold_slices_into_linears import FoldSlicesIntoLinears
from vlacompile.compiler.passes.fold_slices_of_concat import FoldSlicesOfConcat
from vlacompile.compiler.passes.graph_pass import GraphPass
from vlacompile.compiler.passes.guard_empty_rows import GuardEmptyRows
from vlacompile.compiler.passes.hoist_slices import HoistSlices
from vlacompile.compiler.passes.initialise_empty import InitialiseEmpty
from vlacompile.compiler.passes.insert_output_copies import InsertOutputCopies
from vlacompile.compiler.passes.legalise_integers import LegaliseIntegers
from vlacompile.compiler.passes.legalise_types import LegaliseTypes
from vlacompile.compiler.passes.lower_complex import LowerComplex
from vlacompile.compiler.passes.lower_fills import LowerFills
from vlacompile.compiler.passes.lower_resizes import LowerResizes
from vlacompile.compiler.passes.lower_slice_scatters import LowerSliceScatters
from vlacompile.compiler.passes.lower_splits import LowerSplits
from vlacompile.compiler.passes.merge_fills import MergeFills
from vlacompile.compiler.passes.narrow_masked_heads import NarrowMaskedHeads
from vlacompile.compiler.passes.order_operands import OrderOperands
from vlacompile.compiler.passes.rewrite_products_as_linears import RewriteProductsAsLinears
from vlacompile.compiler.passes.slice_before_pointwise import SliceBeforePointwise
from vlacompile.compiler.passes.split_batch_by_rate import SplitBatchByRate
from vlacompile.compiler.passes.split_convolution_over_channels import SplitConvolutionOverChannels
from vlacompile.compiler.passes.split_linear_over_concat import SplitLinearOverConcat
from vlacompile.compiler.passes.split_linear_over_features import SplitLinearOverFeatures
from vlacompile.compiler.passes.split_reads_by_rate import SplitReadsByRate
from vlacompile.compiler.passes.split_tokens_by_rate import SplitTokensByRate
from vlacompile.compiler.passes.unflatten_linears import UnflattenLinears
from vlacompile.compiler.passes.unroll_loop import UnrollLoop
from vlacompile.compiler.passes.unroll_recurrences import UnrollRecurrences


def graph_passes(translated: Callable, decompositions: Callable) -> tuple[GraphPass, ...]:
    """What every program goes through before loops are looked for. translated, decompositions: which ops the format
    that stages are emitted in has, as DecomposeUntranslated takes them."""
    return (
        LowerComplex(),
        UnrollRecurrences(),
        OrderOperands(),
        DecomposeUntranslated(translated, decompositions),
        LegaliseIntegers(),
        DecomposeIntegers(),
        LegaliseTypes(),
        DropIdentities(),
        LowerSplits(),
        InitialiseEmpty(),
        LowerSliceScatters(),
        FoldSlicesOfConcat(),
        UnflattenLinears(),
        FoldBatchNorms(),
        MergeFills(),
        EliminateCommonSubexpressions(),
        RewriteProductsAsLinears(),
        HoistSlices(),
        SplitReadsByRate(),
        SplitTokensByRate(),
        SliceBeforePointwise(),
        SplitLinearOverConcat(),
        SplitLinearOverFeatures(),
        SplitConvolutionOverChannels(),
        NarrowMaskedHeads(),
        FoldSlicesIntoLinears(),
        FoldPicksIntoTables(),
        CollapseLinearChains(),
        SplitBatchByRate(),
        LowerResizes(),
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
    DropOpenMasks(),  # not before: a decoder's last token sees all of its cache, and is to be a step like the others
    FoldSlicesOfConcat(any_rate=True),
    LowerFills(),
    EliminateCommonSubexpressions(),
    DropUnreadRows(),
    CollapseLinearChains(),
    FoldConstants(),
    InsertOutputCopies(),
)
