"""Progress bars: tqdm's, silent when asked to be, or where TQDM_DISABLE is set (tqdm heeds it only if not told otherwise)."""
from tqdm import tqdm


def bar(iterable=None, *, show=True, **options):
    """A tqdm bar over `iterable`, or one to update by hand; `show` False draws nothing."""
    return tqdm(iterable, **({} if show else {"disable": True}), **({"leave": False} | options))
